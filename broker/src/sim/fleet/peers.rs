//! What is overheard between brokers.

use corelog_protocol::frame::FrameKind;

use super::{World, aim};
use crate::metadata::consensus::PeerMessage;
use crate::replica::{LaneMessage, LaneReport};
use crate::sim::trace::Violation;

impl World {
    pub(super) fn overhear_peer(
        &mut self,
        from: (usize, u64),
        to: usize,
        kind: FrameKind,
        control: &[u8],
        payload: &[u8],
    ) {
        match kind {
            FrameKind::PeerMetadata => {
                // Whichever part carries it.
                let bytes = if control.is_empty() { payload } else { control };
                match PeerMessage::decode(bytes) {
                    Ok(message) => {
                        let checked = self.checks.metadata.on_message(from.0, &message);
                        self.check(checked);
                        self.aim(aim::moment_of_records(&message), from.0, to);
                    }
                    Err(error) => self.cannot_be_read(from.0, kind, &format!("{error:?}")),
                }
            }
            FrameKind::PeerLane => match LaneMessage::decode(control) {
                Ok((lane, epoch, message)) => {
                    self.line(|| {
                        format!("broker {} says to {to}: {lane} {epoch} {message:?}", from.0)
                    });
                    let checked =
                        self.checks.on_lane_message(from, to, (lane, epoch), &message, payload);
                    self.check(checked);
                    self.aim(aim::moment_of_message(&message), from.0, to);
                }
                Err(error) => self.cannot_be_read(from.0, kind, &format!("{error:?}")),
            },
            FrameKind::PeerFence => match LaneReport::decode(control) {
                Ok(report) => {
                    self.line(|| format!("broker {} reports to {to}: {report:?}", from.0));
                    self.checks.readers.on_report(from.0, &report);
                    self.aim(aim::moment_of_report(&report), from.0, to);
                }
                Err(error) => self.cannot_be_read(from.0, kind, &format!("{error:?}")),
            },
            _ => {}
        }
    }

    fn cannot_be_read(&mut self, from: usize, kind: FrameKind, error: &str) {
        let text = format!("broker {from} says a {kind} that cannot be read: {error}");
        self.violated(Violation::new("I12", text));
    }
}
