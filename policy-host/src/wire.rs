//! What goes over the socket between the scheduler and a plugin's process.
//!
//! A frame is a kind, a number, the length of its payload (32 bits each, little-endian) and the payload. The scheduler
//! asks one thing at a time and waits for its answer, which has the number of the request, so that an answer too many is
//! not taken for that to the next question. What is said before there is a request has the number 0. Requests come from the scheduler and are trusted; answers come from a
//! process that runs foreign code, so [`Answer::decode`] takes nothing for granted.

use thiserror::Error;
use vcpu_policy_api::abi::types::MAX_DEFAULTS;
use vcpu_policy_api::plan::MAX_TEXT;

use crate::fields::{Fields, Malformed, printable, put_text, put_u32};
use crate::offer::Offer;
use crate::plan_wire::MAX_PLAN_BYTES;

/// The version of all of this. The scheduler says which one it means when it starts the process: the two programs can be of
/// different releases, where one was replaced while the other ran.
pub const PROTOCOL: u32 = 1;
/// The size of what precedes a payload, in bytes.
pub const HEAD_BYTES: usize = 12;
/// The longest payload of a request: a snapshot far larger than any host's.
pub const MAX_REQUEST_BYTES: usize = 256 << 20;
/// The longest payload of an answer.
pub const MAX_ANSWER_BYTES: usize = MAX_PLAN_BYTES;
/// How many policies a library may offer.
pub const MAX_OFFERS: usize = 64;
/// The longest text of an offer, in bytes: its default options are the longest of them.
const MAX_OFFER_TEXT: usize = 64 << 10;
const _: () = assert!(MAX_OFFER_TEXT as u64 >= MAX_DEFAULTS);
/// How many restrictions can be missing.
const MAX_MISSING: usize = 16;

/// What a frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the payload is.
    pub kind: u32,
    /// Which request it is, or answers.
    pub number: u32,
    /// The payload's length in bytes.
    pub length: u32,
}

impl Head {
    /// The head of a frame with this payload.
    pub fn of(kind: u32, number: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            number,
            length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        }
    }

    /// As bytes.
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let fields = [self.kind, self.number, self.length];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// From bytes.
    pub fn from_bytes(bytes: [u8; HEAD_BYTES]) -> Self {
        let mut fields = Fields::new(&bytes);
        let mut field = || fields.u32().unwrap_or_default();
        Self {
            kind: field(),
            number: field(),
            length: field(),
        }
    }
}

/// The kinds of requests.
pub mod request {
    /// Make a policy; the payload is [`super::encode_make`]'s.
    pub const MAKE: u32 = 1;
    /// Decide; the payload is a snapshot's bytes.
    pub const DECIDE: u32 = 2;
}

mod answer {
    pub(super) const CONFINED: u32 = 101;
    pub(super) const OFFERS: u32 = 102;
    pub(super) const MADE: u32 = 103;
    pub(super) const PLAN: u32 = 104;
    pub(super) const REFUSED: u32 = 105;
    pub(super) const FAILED: u32 = 106;
}

/// The payload of [`request::MAKE`].
pub fn encode_make(policy: &str, options: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_text(&mut bytes, policy, MAX_OFFER_TEXT);
    put_text(&mut bytes, options, MAX_REQUEST_BYTES);
    bytes
}

/// The policy's name and its options.
///
/// # Errors
/// If the bytes are not such a payload.
pub fn decode_make(bytes: &[u8]) -> Result<(&str, &str), WireError> {
    let mut fields = Fields::new(bytes);
    let both = fields
        .text(MAX_OFFER_TEXT)
        .and_then(|policy| Ok((policy, fields.text(MAX_REQUEST_BYTES)?)));
    both.map_err(|Malformed| WireError::Malformed { kind: request::MAKE })
}

/// What a plugin's process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// It has given up its rights and loads the library now. What this kernel could not take from it, in words.
    Confined {
        /// One text for each restriction that is not in force.
        missing: Vec<String>,
    },
    /// The library is loaded and has these policies.
    Offers(Vec<Offer>),
    /// The policy is made.
    Made,
    /// The policy has decided; see [`crate::plan_wire`].
    Plan(&'a [u8]),
    /// It cannot be started, the library cannot be loaded, or the policy does not take its options.
    Refused(String),
    /// The policy could not decide.
    Failed {
        /// Whether the policy's state was lost with it.
        state_lost: bool,
        /// What it says.
        message: String,
    },
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// No such kind of frame.
    #[error("a frame of unknown kind {kind}")]
    UnknownKind {
        /// The kind it states.
        kind: u32,
    },
    /// A payload that is longer than any answer.
    #[error("a frame of {length} bytes; {MAX_ANSWER_BYTES} at most are taken")]
    TooLong {
        /// The length it states.
        length: u32,
    },
    /// The payload is not what its kind says.
    #[error("a frame of kind {kind} whose content is malformed")]
    Malformed {
        /// The kind it states.
        kind: u32,
    },
}

impl Head {
    /// Checks that this can be the head of an answer; gives the length of the payload.
    ///
    /// # Errors
    /// If it cannot.
    pub fn answer_length(self) -> Result<usize, WireError> {
        if !(answer::CONFINED..=answer::FAILED).contains(&self.kind) {
            return Err(WireError::UnknownKind { kind: self.kind });
        }
        usize::try_from(self.length)
            .ok()
            .filter(|&length| length <= MAX_ANSWER_BYTES)
            .ok_or(WireError::TooLong { length: self.length })
    }
}

impl<'a> Answer<'a> {
    /// Writes the whole frame of the answer to the request of this number.
    pub fn encode(&self, number: u32) -> Vec<u8> {
        let mut payload = Vec::new();
        let kind = match self {
            Self::Confined { missing } => {
                put_u32(&mut payload, u32::try_from(missing.len()).unwrap_or(u32::MAX));
                for text in missing {
                    put_text(&mut payload, text, MAX_TEXT);
                }
                answer::CONFINED
            }
            Self::Offers(offers) => {
                put_u32(&mut payload, u32::try_from(offers.len()).unwrap_or(u32::MAX));
                for text in offers.iter().flat_map(Offer::texts) {
                    put_text(&mut payload, text, MAX_OFFER_TEXT);
                }
                answer::OFFERS
            }
            Self::Made => answer::MADE,
            Self::Plan(plan) => {
                payload.extend_from_slice(plan);
                answer::PLAN
            }
            Self::Refused(message) => {
                put_text(&mut payload, message, MAX_TEXT);
                answer::REFUSED
            }
            Self::Failed { state_lost, message } => {
                put_u32(&mut payload, u32::from(*state_lost));
                put_text(&mut payload, message, MAX_TEXT);
                answer::FAILED
            }
        };
        let mut frame = Head::of(kind, number, &payload).to_bytes().to_vec();
        frame.append(&mut payload);
        frame
    }

    /// Reads the payload of a frame.
    ///
    /// # Errors
    /// If the payload is not what its kind says.
    pub fn decode(kind: u32, payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new(payload);
        let answer = match kind {
            answer::PLAN => return Ok(Self::Plan(payload)),
            answer::CONFINED => confined(&mut fields),
            answer::OFFERS => offers(&mut fields),
            answer::MADE => Ok(Self::Made),
            answer::REFUSED => text(&mut fields, MAX_TEXT).map(Self::Refused),
            answer::FAILED => fields.count(1).and_then(|state_lost| {
                Ok(Self::Failed {
                    state_lost: state_lost == 1,
                    message: text(&mut fields, MAX_TEXT)?,
                })
            }),
            kind => return Err(WireError::UnknownKind { kind }),
        };
        match answer {
            Ok(answer) if fields.is_empty() => Ok(answer),
            _ => Err(WireError::Malformed { kind }),
        }
    }
}

fn text(fields: &mut Fields<'_>, most: usize) -> Result<String, Malformed> {
    Ok(printable(fields.text(most)?).into_owned())
}

fn confined(fields: &mut Fields<'_>) -> Result<Answer<'static>, Malformed> {
    let missing = (0..fields.count(MAX_MISSING)?).map(|_| text(fields, MAX_TEXT));
    Ok(Answer::Confined {
        missing: missing.collect::<Result<_, _>>()?,
    })
}

fn offers(fields: &mut Fields<'_>) -> Result<Answer<'static>, Malformed> {
    let offers = (0..fields.count(MAX_OFFERS)?).map(|_| {
        Ok(Offer {
            name: text(fields, MAX_OFFER_TEXT)?,
            version: text(fields, MAX_OFFER_TEXT)?,
            summary: text(fields, MAX_OFFER_TEXT)?,
            // Options are YAML: their lines are kept.
            defaults: fields.text(MAX_OFFER_TEXT)?.to_owned(),
        })
    });
    offers.collect::<Result<_, _>>().map(Answer::Offers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(answer: &Answer<'_>) {
        let frame = answer.encode(7);
        let (head, payload) = frame.split_first_chunk().expect("a head");
        let head = Head::from_bytes(*head);
        assert_eq!((head.number, head.answer_length()), (7, Ok(payload.len())));
        assert_eq!(Answer::decode(head.kind, payload).as_ref(), Ok(answer));
    }

    #[test]
    fn answers_arrive_as_they_were_sent() {
        let offer = |name: &str| Offer {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            summary: "does something".to_owned(),
            defaults: "a: 1\nb: 2\n".to_owned(),
        };
        round_trip(&Answer::Confined {
            missing: vec!["no landlock".to_owned()],
        });
        round_trip(&Answer::Offers(vec![offer("night"), offer("day")]));
        round_trip(&Answer::Made);
        round_trip(&Answer::Plan(b"anything"));
        round_trip(&Answer::Refused("no such option".to_owned()));
        round_trip(&Answer::Failed {
            state_lost: true,
            message: "it panicked".to_owned(),
        });
        assert_eq!(
            decode_make(&encode_make("night", "a: 1\n")),
            Ok(("night", "a: 1\n"))
        );
    }

    #[test]
    fn the_longest_offers_arrive_whole() {
        let offer = Offer {
            name: "a".repeat(64),
            version: "1".repeat(64),
            summary: "b".repeat(1024),
            defaults: "c".repeat(MAX_OFFER_TEXT),
        };
        let offers = Answer::Offers(vec![offer; MAX_OFFERS]);
        assert!(offers.encode(0).len() <= MAX_ANSWER_BYTES);
        round_trip(&offers);
    }

    #[test]
    fn a_head_that_lies_is_refused() {
        let head = |kind, length| {
            let number = 0;
            Head { kind, number, length }.answer_length()
        };
        assert_eq!(head(7, 0), Err(WireError::UnknownKind { kind: 7 }));
        assert_eq!(
            head(answer::PLAN, u32::MAX),
            Err(WireError::TooLong { length: u32::MAX })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_answer_or_an_error(
            kind in 100u32..108,
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            small in any::<u8>(),
        ) {
            let _ = Answer::decode(kind, &bytes);
            // The same with a first count that is small enough to be taken for one.
            bytes.splice(0..bytes.len().min(4), u32::from(small).to_le_bytes());
            let _ = Answer::decode(kind, &bytes);
            let _ = decode_make(&bytes);
        }
    }
}
