//! A compressed batch, whose checksum is right: nobody has looked at its records before a consumer does.

use corelog::{Compression, PackFault, UNPACKED_BYTES_MAX, pack_batch, unpack_batch};
use corelog_protocol::batch::{BATCH_HEADER_BYTES, BatchView};

use crate::protocol::sample_batch;
use crate::tape::mend_body;

/// See the module.
pub fn run(input: &[u8]) {
    let mut batch = input.to_vec();
    mend_body(&mut batch);
    match unpack_batch(&batch) {
        Ok(plain) => {
            assert!(plain.len() <= BATCH_HEADER_BYTES + UNPACKED_BYTES_MAX);
            let view = BatchView::parse(&plain).expect("what is unpacked is sound");
            let packed = BatchView::check_header(&batch).expect("it was unpacked");
            assert!(view.records().count() == packed.header().record_count as usize);
            // There and back again, with either codec.
            for compression in [Compression::Lz4, Compression::Zstd] {
                let again = pack_batch(compression, plain.clone());
                assert!(again.len() <= plain.len());
                assert!(unpack_batch(&again).as_ref() == Ok(&plain));
            }
        }
        Err(PackFault::Records(_) | PackFault::Garbage | PackFault::TooLarge) => {}
    }
}

/// What an honest producer makes.
pub fn seeds() -> Vec<Vec<u8>> {
    let long = "a value that repeats, ".repeat(20);
    let values = [&long[..], "short", &long];
    [Compression::None, Compression::Lz4, Compression::Zstd]
        .map(|compression| pack_batch(compression, sample_batch(&values)))
        .to_vec()
}
