//! What a large run of several brokers must have met, or it has proved less than it seems.

use crate::sim::tally::Tally;

/// Names of the tally.
pub const MINIMUM: &[&str] = &[
    "checked I1 records read back",
    "checked I1 committed entries",
    "checked I2 acks against the disks",
    "checked I3 entries served",
    "checked I4 records in order",
    "checked I5 failures never seen",
    "checked I6 batches with sequences",
    "checked I7 acknowledged entries",
    "checked I7 epochs led",
    "checked I7 entries compared",
    "checked I7 entries on disks at the end",
    "checked I12 requests answered",
    "checked I14 progress",
    "checked metadata versions",
    "acked records",
    "records consumed",
    "records of unknown fate",
    "records failed for certain",
    "leader changes",
    "metadata terms led",
    "kills",
    "power losses",
    "power losses of all",
    "pauses",
    "cuts",
    "one-way cuts",
    "partial partitions",
    "stops in good order",
    "connections broken by silence",
    "dials refused",
    "dials without an answer",
    "sectors kept by power losses",
    "sectors lost by power losses",
    "fault kill",
    "fault power cut",
    "fault power cut of all",
    "fault pause",
    "fault restart",
    "fault stalled disk",
    "fault slow disk",
    "fault cut",
    "fault one-way cut",
    "fault isolation",
    "fault one-way isolation",
    "fault clients cut off",
    "fault links reset",
    "fault dials failing",
    "fault wall clock jump",
    "refusals NotLeader",
];

/// The names that were not met.
pub fn missing(tally: &Tally) -> impl Iterator<Item = &'static str> + '_ {
    MINIMUM.iter().copied().filter(|name| tally.get(name) == 0)
}
