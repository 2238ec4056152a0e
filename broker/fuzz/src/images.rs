//! Footer, checkpoint, log starts and headers of a segment: the first byte says which.

use corelog_broker::sim::sweep::images;

/// See the module.
pub fn run(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    match which % 5 {
        0 => images::footer(bytes),
        1 => images::checkpoint(bytes),
        2 => images::log_starts(bytes),
        3 => images::headers(bytes),
        _ => images::trailer(bytes, 1 << 20),
    };
}

/// Of each image one that is as it should be.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let tagged = |(which, image): (u8, Vec<u8>)| [&[which][..], &image].concat();
    (0..).zip(images::samples()).map(tagged).collect()
}
