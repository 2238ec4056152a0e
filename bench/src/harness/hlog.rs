//! HDR logs, as HdrHistogram's own tools read them: one file for each kind of time, the whole run interval by interval.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use super::books::{Interval, Series};

/// `began`: seconds since 1970. Writes `NAME.hlog`.
pub fn write(
    folder: &Path,
    name: &str,
    series: &Series,
    began: u64,
    pick: impl Fn(&Interval) -> &Histogram<u64>,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(folder.join(format!("{name}.hlog")))?);
    let mut serializer = V2DeflateSerializer::new();
    let start = UNIX_EPOCH + Duration::from_secs(began);
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!("{name} time, ns; an interval holds what was due in it"))
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut file, &mut serializer)?;
    let length = Duration::from_nanos(series.length());
    for (at, interval) in (0..).zip(series.intervals()) {
        let histogram = pick(interval);
        if !histogram.is_empty() {
            writer
                .write_histogram(histogram, length * at, length, None)
                .map_err(|error| io::Error::other(format!("{name}.hlog: {error:?}")))?;
        }
    }
    Ok(())
}
