//! What an ingest's intent holds: everything that other stores are to be told, so that it can be told again.
//!
//! Always true: each part says how many there are, so that one that is lost is missed.

use bytes::Bytes;
use larder_protocol::codec::{Codec, decode, encode};
use larder_protocol::graph::SourceFacts;
use larder_protocol::vectors::Point;
use larder_protocol::{Error as Kind, PointId};
use serde::{Deserialize, Serialize};

/// Points in one part: a megabyte or two.
const PART_POINTS: usize = 512;
/// Ids, or sources, in one part.
const PART_ITEMS: usize = 10_000;
/// No part is larger: it is of the size of what one request may hold.
const PART_BYTES_MAX: usize = 1 << 30;

/// What other stores are to be told of one document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Payload {
    /// The points of nodes that are new or changed.
    pub(super) points: Vec<Point>,
    /// The points of nodes that are as they were.
    pub(super) keep: Vec<PointId>,
    /// What nodes say that are new or changed; nothing at all, where no graph is kept.
    pub(super) facts: Vec<SourceFacts>,
}

/// A part of a payload.
#[derive(Deserialize)]
struct Part {
    part_count: usize,
    payload: Payload,
}

/// The same, borrowed.
#[derive(Serialize)]
struct PartRef<'a> {
    part_count: usize,
    payload: PayloadRef<'a>,
}

#[derive(Default, Serialize)]
struct PayloadRef<'a> {
    points: &'a [Point],
    keep: &'a [PointId],
    facts: &'a [SourceFacts],
}

impl Payload {
    /// Returns the payload as parts, each of a bounded size; one where there is nothing to tell.
    pub(super) fn encode(&self) -> Result<Vec<Bytes>, Kind> {
        let nothing = PayloadRef::default;
        let points = self.points.chunks(PART_POINTS).map(|points| PayloadRef { points, ..nothing() });
        let keep = self.keep.chunks(PART_ITEMS).map(|keep| PayloadRef { keep, ..nothing() });
        let facts = self.facts.chunks(PART_ITEMS).map(|facts| PayloadRef { facts, ..nothing() });
        let mut parts: Vec<PayloadRef<'_>> = points.chain(keep).chain(facts).collect();
        if parts.is_empty() {
            parts.push(nothing());
        }
        let part_count = parts.len();
        parts.into_iter().map(|payload| encode(Codec::default(), &PartRef { part_count, payload })).collect()
    }

    pub(super) fn decode(parts: &[Bytes]) -> Result<Self, Kind> {
        let mut whole = Self::default();
        let mut part_counts = Vec::with_capacity(parts.len());
        for part in parts {
            let Part { part_count, payload } = decode(part, PART_BYTES_MAX)?;
            part_counts.push(part_count);
            whole.points.extend(payload.points);
            whole.keep.extend(payload.keep);
            whole.facts.extend(payload.facts);
        }
        if parts.is_empty() || part_counts.iter().any(|count| *count != parts.len()) {
            return Err(Kind::invalid("payload of an intent", "parts of it are not there"));
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use larder_protocol::graph::NewRelation;
    use larder_protocol::{JsonText, SourceId};

    use super::*;

    #[test]
    fn payload_of_several_parts_is_read_back() {
        let point = |n: usize| {
            let point = Point::new(format!("n{n}"), vec![0.5, 1.0]).unwrap();
            point.with_document("d").unwrap().with_metadata(JsonText::new(r#"{"a": 1}"#).unwrap())
        };
        let facts = SourceFacts {
            source: SourceId::new("node:n1").unwrap(),
            relations: vec![NewRelation::new("a", "b", "c").unwrap().with_weight(2.0)],
        };
        let payload = Payload {
            points: (0..PART_POINTS + 1).map(point).collect(),
            keep: vec![PointId::new("k").unwrap()],
            facts: vec![facts],
        };
        let parts = payload.encode().unwrap();
        assert_eq!(parts.len(), 4);
        assert_eq!(Payload::decode(&parts).unwrap(), payload);
        for lost in 0..parts.len() {
            let rest: Vec<Bytes> =
                parts.iter().enumerate().filter(|(n, _)| *n != lost).map(|(_, part)| part.clone()).collect();
            assert!(Payload::decode(&rest).is_err(), "part {lost} is not missed");
        }
        let nothing = Payload::default().encode().unwrap();
        assert_eq!(Payload::decode(&nothing).unwrap(), Payload::default());
        assert!(Payload::decode(&[]).is_err());
    }
}
