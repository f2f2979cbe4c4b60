//! Events for TensorBoard: its record format, and the few messages that hold a number.
//!
//! <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/io/record_writer.h> and
//! <https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto>.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use shared::files::write_atomically;

use super::{Epoch, History};

/// Name of the file; TensorBoard knows it by its middle part.
pub const FILE: &str = "events.out.tfevents.ikat";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    value: Option<f32>,
}

/// A file of all epochs, of what was before the first, and of the test error at the end where it is known.
pub fn encode(history: &History, test_error: Option<f32>) -> Vec<u8> {
    let version = Event {
        wall_time: now(),
        file_version: Some("brain.Event:2".to_owned()),
        ..Event::default()
    };
    let mut bytes = record(&version);
    if let Some(before) = history.before {
        let values = [
            ("loss/validation", Some(before.loss)),
            ("error/validation", Some(before.error)),
        ];
        bytes.extend(record(&event(0, values)));
    }
    for (number, epoch) in history.epochs.iter().enumerate() {
        bytes.extend(record(&of_epoch(number, epoch)));
    }
    if let Some(error) = test_error {
        bytes.extend(record(&event(history.epochs.len(), [("error/test", Some(error))])));
    }
    bytes
}

/// Follows a training: a file in a folder that grows by each epoch.
pub(super) struct Follower<'a> {
    folder: &'a Path,
}

impl<'a> Follower<'a> {
    /// Begins the file anew, with what came before.
    pub fn begin(folder: &'a Path, history: &History) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        write_atomically(&folder.join(FILE), &encode(history, None))?;
        Ok(Self { folder })
    }

    /// Adds the last epoch of `history`.
    pub fn add(&self, history: &History) -> io::Result<()> {
        let Some((epoch, before)) = history.epochs.split_last() else {
            return Ok(());
        };
        let mut file = OpenOptions::new().append(true).open(self.folder.join(FILE))?;
        file.write_all(&record(&of_epoch(before.len(), epoch)))
    }
}

/// Epoch `number`, counted from 0 here and from 1 in the file.
fn of_epoch(number: usize, epoch: &Epoch) -> Event {
    event(
        number + 1,
        [
            ("learning rate", Some(epoch.rate)),
            ("loss/training", Some(epoch.train_loss)),
            ("loss/validation", epoch.validation_loss),
            ("error/training", Some(epoch.train_error)),
            ("error/validation", epoch.validation_error),
        ],
    )
}

fn event<const N: usize>(step: usize, values: [(&str, Option<f32>); N]) -> Event {
    let values = values.into_iter().filter(|(_, value)| value.is_some());
    let values = values.map(|(tag, value)| Scalar {
        tag: tag.to_owned(),
        value,
    });
    Event {
        wall_time: now(),
        step: step as i64,
        summary: Some(Summary {
            values: values.collect(),
        }),
        ..Event::default()
    }
}

/// Length, its checksum, the message, its checksum.
fn record(event: &Event) -> Vec<u8> {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    [
        length.as_slice(),
        &masked_checksum(&length).to_le_bytes(),
        &message,
        &masked_checksum(&message).to_le_bytes(),
    ]
    .concat()
}

fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refine::{self, Validation};

    const EPOCH: Epoch = Epoch {
        validation_loss: None,
        calibrated_validation_loss: None,
        ..refine::EPOCH
    };

    fn decode(mut bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
            let (checksum, rest) = rest.split_first_chunk::<4>().expect("a checksum");
            assert_eq!(u32::from_le_bytes(*checksum), masked_checksum(length));
            let (message, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
            let (checksum, rest) = rest.split_first_chunk::<4>().expect("a checksum");
            assert_eq!(u32::from_le_bytes(*checksum), masked_checksum(message));
            events.push(Event::decode(message).expect("an event"));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        events
    }

    #[test]
    fn a_file_that_grew_says_what_one_written_at_once_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut history = History {
            before: Some(Validation {
                loss: 0.7,
                calibrated: 0.6,
                error: 0.4,
            }),
            epochs: vec![EPOCH],
        };
        let follower = Follower::begin(folder.path(), &history).expect("a file");
        history.epochs.push(Epoch { rate: 0.2, ..EPOCH });
        follower.add(&history).expect("added");
        let grown = decode(&std::fs::read(folder.path().join(FILE)).expect("a file"));
        let at_once = decode(&encode(&history, Some(0.3)));
        let numbers = |events: &[Event]| -> Vec<(i64, String, f32)> {
            let all = events.iter().flat_map(|event| {
                let values = event.summary.iter().flat_map(|summary| &summary.values);
                values.map(|value| (event.step, value.tag.clone(), value.value.unwrap_or(f32::NAN)))
            });
            all.collect()
        };
        assert_eq!(at_once[0].file_version.as_deref(), Some("brain.Event:2"));
        let expected = numbers(&at_once);
        assert_eq!(expected.len(), 2 + 2 * 4 + 1);
        assert_eq!(expected[0], (0, "loss/validation".to_owned(), 0.7));
        assert_eq!(expected.last(), Some(&(2, "error/test".to_owned(), 0.3)));
        assert_eq!(numbers(&grown), expected[..10]);
    }

    /// The check value of CRC-32C (RFC 3720), masked by hand.
    #[test]
    fn checksums_are_those_of_the_format() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_checksum(b"123456789"), 0xc78a_b0e5);
    }
}
