"""The nouns, the Protocols and the dimension key.

Dimension key, the suffix of local arrays: N rows of a shard or minibatch, M candidates, B budget,
C classes, D embedding width, K draws, L labelled, S slices, T targets of a regression.

Nothing here imports torch, ray, faiss or hydra: `import rayal.types` is cheap.
"""

from rayal.types.names import (
    OUTPUTS,
    PREDICTED_CLASS,
    Float64s,
    Ids,
    Kind,
    Label,
    Needs,
    Scores,
    source_of,
    tags_of,
)
from rayal.types.parts import (
    Capabilities,
    Group,
    Labeler,
    Predictor,
    Progress,
    Scorer,
    Selector,
    StoppingRule,
    Trainer,
)
from rayal.types.records import (
    Ack,
    Batch,
    Checkpoint,
    Chunk,
    LabelEvent,
    Order,
    Record,
    Snapshot,
    Status,
    TestResult,
    from_record,
    to_record,
)
from rayal.types.rows import DETAILS, NO_ID, PICK_COLUMNS, Candidates, Outputs, Picks, Slice
from rayal.types.vocabulary import Vocabulary

__all__ = [
    "DETAILS",
    "NO_ID",
    "OUTPUTS",
    "PICK_COLUMNS",
    "PREDICTED_CLASS",
    "Ack",
    "Batch",
    "Candidates",
    "Capabilities",
    "Checkpoint",
    "Chunk",
    "Float64s",
    "Group",
    "Ids",
    "Kind",
    "Label",
    "LabelEvent",
    "Labeler",
    "Needs",
    "Order",
    "Outputs",
    "Picks",
    "Predictor",
    "Progress",
    "Record",
    "Scorer",
    "Scores",
    "Selector",
    "Slice",
    "Snapshot",
    "Status",
    "StoppingRule",
    "TestResult",
    "Trainer",
    "Vocabulary",
    "from_record",
    "source_of",
    "tags_of",
    "to_record",
]
