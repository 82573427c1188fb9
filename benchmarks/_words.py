"""Real data with many labels a row: words, and the languages that each is a word of."""

from __future__ import annotations

import functools

import numpy as np

LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pt", "sv")
_FREQUENT, _KNOWN = 3_000, 20_000  # words taken of each language, and words it is asked for


@functools.cache
def words_in_languages(width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Gives (N, width) float32 features of the most frequent words of eight languages (wordfreq),
    letters and pairs and triples of them, and (N, 8) whether each is a word of each language.

    Raises:
        ModuleNotFoundError: wordfreq is not installed (it comes with rayal[recipes]).
    """
    import wordfreq
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = {one: set(wordfreq.top_n_list(one, _KNOWN)) for one in LANGUAGES}
    words = sorted({word for one in LANGUAGES for word in wordfreq.top_n_list(one, _FREQUENT)})
    y_NL = np.array([[word in known[one] for one in LANGUAGES] for word in words], np.int64)
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=5, sublinear_tf=True)
    dense_ND = TruncatedSVD(width, random_state=0).fit_transform(grams.fit_transform(words))
    return dense_ND.astype(np.float32), y_NL
