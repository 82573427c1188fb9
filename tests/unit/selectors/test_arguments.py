import pytest

from rayal.errors import ConfigError
from rayal.selectors.badge import Badge
from rayal.selectors.cluster_margin import ClusterMargin
from rayal.selectors.gsx import GSx
from rayal.selectors.igs import IGS
from rayal.selectors.k_center import KCenter
from rayal.selectors.kmeans import KMeans


@pytest.mark.parametrize("selector", [ClusterMargin, GSx, IGS, KCenter, KMeans])
@pytest.mark.parametrize("feature", ["sample_id", "source_id", "label", "pending", "", None, 3])
def test_what_is_no_feature_is_refused(selector, feature):
    found = rf"^{selector.__name__}\.feature is {feature!r}, expected an output \(probs, embeds, "
    with pytest.raises(ConfigError, match=found):
        selector(feature=feature)
    assert selector(feature="age").feature == "age"


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        (KMeans, "max_clusters"),
        (KMeans, "sample_per_cluster"),
        (KMeans, "num_iterations"),
        (ClusterMargin, "num_clusters"),
        (ClusterMargin, "sample_per_cluster"),
        (ClusterMargin, "num_iterations"),
    ],
)
@pytest.mark.parametrize("count", [0, -1, 2.5, "8", True])
def test_a_count_below_one_is_refused(selector, name, count):
    found = rf"^{selector.__name__}\.{name} is {count!r}, expected a whole number of at least 1; "
    with pytest.raises(ConfigError, match=found):
        selector(**{name: count})
    assert getattr(selector(**{name: 1}), name) == 1


def test_null_is_the_default_number_of_clusters_and_no_other_count():
    assert ClusterMargin(num_clusters=None).num_clusters is None
    with pytest.raises(ConfigError, match="max_clusters is None"):
        KMeans(max_clusters=None)


@pytest.mark.parametrize("multilabel", ["false", "yes", 2])
def test_a_word_is_no_truth_value(multilabel):
    found = rf"^Badge\.multilabel is {multilabel!r}, expected true or false"
    with pytest.raises(ConfigError, match=found):
        Badge(multilabel=multilabel)
