//! The names of segment files: 20 digits, then `.seg` in use or `.new` in preparation.

use corelog_protocol::ids::LaneId;

use crate::disk::{DirectoryId, Place};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// Its header was durable before it got this name.
    Segment(u64),
    /// Holds nothing that anybody was ever promised.
    Preparation,
    /// Not ours; left alone.
    Other,
}

pub fn parse(name: &str) -> Name {
    let Some((digits, kind)) = name.split_once('.') else { return Name::Other };
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Name::Other;
    }
    match (kind, digits.parse()) {
        ("seg", Ok(sequence)) => Name::Segment(sequence),
        ("new", Ok(_)) => Name::Preparation,
        _ => Name::Other,
    }
}

pub fn folder(directory: DirectoryId, lane: LaneId) -> Place {
    Place { directory, path: format!("lanes/{lane}").into() }
}

pub fn segment(directory: DirectoryId, lane: LaneId, sequence: u64) -> Place {
    Place { directory, path: format!("lanes/{lane}/{sequence:020}.seg").into() }
}

pub fn preparation(directory: DirectoryId, lane: LaneId, sequence: u64) -> Place {
    Place { directory, path: format!("lanes/{lane}/{sequence:020}.new").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_strictly_and_never_panic() {
        assert_eq!(parse("00000000000000000017.seg"), Name::Segment(17));
        assert_eq!(parse("00000000000000000017.new"), Name::Preparation);
        for other in [
            "",
            ".",
            "17.seg",
            "0000000000000000001x.seg",
            "99999999999999999999.seg",
            "00000000000000000017.seg.old",
            "00000000000000000017",
            "lost+found",
        ] {
            assert_eq!(parse(other), Name::Other, "{other}");
        }
        let place = segment(DirectoryId(0), LaneId(4), 17);
        assert_eq!(&*place.path, "lanes/4/00000000000000000017.seg");
    }
}
