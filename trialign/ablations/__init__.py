"""The paper's own question: which of TriAlignGR's parts pay, and what would refute it (notebook 07)."""

from trialign.ablations.compare import CLAIMS, Results, conclusion
from trialign.ablations.records import Record, find_records, read_record, write_record
from trialign.ablations.study import Settings, Study, shuffled_captions
from trialign.ablations.variants import FULL, QUESTIONS, Variant, distinct

__all__ = [
    "CLAIMS",
    "FULL",
    "QUESTIONS",
    "Record",
    "Results",
    "Settings",
    "Study",
    "Variant",
    "conclusion",
    "distinct",
    "find_records",
    "read_record",
    "shuffled_captions",
    "write_record",
]
