//! From lines that name images to rows of features.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::files::hex;
use shared::image::Limits;
use shared::network::Network;
use shared::pipeline::Featurizer;
use shared::preprocessing::Preprocessing;
use shared::service::ServiceError;

use super::RowsError;
use crate::conveyor::{self, Addressed};
use crate::dataset::OWN_FOLDER;
use crate::features::{CacheKey, Networks, Record};
use crate::image_reader::ImageReader;
use crate::progress::{Progress, stage};
use crate::threads::workers;

/// Longest line that names an image, in bytes.
const MOST_BYTES: u64 = 1 << 16;
/// Progress is told of after so many rows.
const STEP: u64 = 100;

/// What computes features.
pub struct Featurization<'a> {
    /// Makes one network per thread.
    pub networks: &'a Networks<'a>,
    /// Names network and preprocessing in each row.
    pub key: &'a CacheKey,
    /// How pixels are prepared.
    pub preprocessing: &'a Preprocessing,
    /// What an image may cost.
    pub limits: Limits,
    /// Images worked on at once.
    pub threads: usize,
    /// Whether images are also read from addresses in private networks.
    pub allow_private: bool,
}

/// How many rows were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub rows: u64,
    /// Those that say why there are no features.
    pub errors: u64,
}

/// An image to compute features of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    item: String,
    label: Option<String>,
    problem: Option<&'static str>,
}

impl Line {
    /// Reads an address, or an address, a tab and a label.
    pub fn parse(text: &str) -> Self {
        let (item, label) = match text.split_once('\t') {
            Some((item, label)) => (item, Some(label.trim())),
            None => (text, None),
        };
        Self {
            item: item.to_owned(),
            label: label.filter(|label| !label.is_empty()).map(str::to_owned),
            problem: None,
        }
    }

    /// Whether the image lies in the folder where a data set keeps what is no image of it. Other hidden folders may be
    /// above the data set, whose root a line does not tell.
    pub fn is_set_aside(&self) -> bool {
        let folder = Path::new(&self.item).parent();
        folder.is_some_and(|folder| folder.iter().any(|name| name == OWN_FOLDER))
    }

    fn wrong(bytes: &[u8], problem: &'static str) -> Self {
        Self {
            item: String::from_utf8_lossy(bytes).into_owned(),
            label: None,
            problem: Some(problem),
        }
    }
}

impl Addressed for Line {
    fn address(&self) -> Result<&str, ServiceError> {
        match self.problem {
            Some(problem) => Err(ServiceError::bad_request(problem)),
            None => Ok(&self.item),
        }
    }
}

/// The images that the lines of `input` name, one a line; empty lines are passed over. Where `input` breaks off, they
/// end, and `broken` tells why.
pub fn lines(mut input: impl BufRead, broken: Arc<OnceLock<io::Error>>) -> impl Iterator<Item = Line> {
    std::iter::from_fn(move || {
        next(&mut input).unwrap_or_else(|error| {
            // The first reason is the one to tell.
            let _ = broken.set(error);
            None
        })
    })
}

fn next(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    loop {
        let mut bytes = Vec::new();
        let length = input.by_ref().take(MOST_BYTES).read_until(b'\n', &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        if length as u64 == MOST_BYTES && !bytes.ends_with(b"\n") {
            input.skip_until(b'\n')?;
            bytes.truncate(256);
            return Ok(Some(Line::wrong(&bytes, "the line is too long")));
        }
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        // Some editors begin a file with a mark that is none of its text.
        match std::str::from_utf8(&bytes).map(|text| text.trim_start_matches('\u{feff}')) {
            Err(_) => return Ok(Some(Line::wrong(&bytes, "the line is not UTF-8"))),
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => return Ok(Some(Line::parse(text))),
        }
    }
}

#[derive(Serialize)]
struct Row<'a> {
    item: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Features {
        network: &'a str,
        sha256: String,
        dhash: String,
        features: Vec<f32>,
    },
    Error {
        error: ServiceError,
        passing: bool,
    },
}

/// Writes a row for each of `images` to `output`, in their order; memory stays flat, however many there are.
///
/// # Errors
/// See [`RowsError`]. An image at fault is none: its row tells.
pub fn write(
    images: impl Iterator<Item = Line> + Send + 'static,
    featurization: &Featurization,
    mut output: impl Write,
    progress: &dyn Progress,
) -> Result<Counts, RowsError> {
    let reader = ImageReader::new(featurization.limits, featurization.allow_private)?;
    let threads = featurization.networks.threads(featurization.threads).max(1);
    let workers = workers(threads, || {
        let network = featurization.networks.network();
        network.map(|network| featurization.worker(network))
    })?;
    let mut counts = Counts::default();
    let _stage = stage(progress, "Computing features", None);
    conveyor::run(images, &reader, workers, |(mut row, is_error): (String, bool)| {
        row.push('\n');
        output.write_all(row.as_bytes())?;
        counts.rows += 1;
        counts.errors += u64::from(is_error);
        progress.advance(1);
        if counts.rows.is_multiple_of(STEP) {
            progress.status(&format!("{} images", counts.rows));
        }
        Ok::<_, RowsError>(())
    })?;
    output.flush()?;
    Ok(counts)
}

impl Featurization<'_> {
    /// From an image to its row, and whether that is one without features.
    fn worker(
        &self,
        network: Box<dyn Network>,
    ) -> impl FnMut(Line, Result<Bytes, ServiceError>) -> (String, bool) + Send + use<> {
        let mut featurizer = Featurizer::new(self.limits, self.preprocessing.clone(), network);
        let key = self.key.as_str().to_owned();
        move |line: Line, image: Result<Bytes, ServiceError>| {
            let record = image.and_then(|bytes| {
                let record = Record::compute(&mut featurizer, Sha256::digest(&bytes).into(), &bytes);
                record.map_err(ServiceError::from)
            });
            let outcome = match record {
                Ok(record) => Outcome::Features {
                    network: &key,
                    sha256: hex(&record.image),
                    dhash: hex(&record.dhash),
                    features: record.features,
                },
                Err(error) => Outcome::Error {
                    passing: error.code.is_passing(),
                    error,
                },
            };
            let is_error = matches!(outcome, Outcome::Error { .. });
            let row = Row {
                item: &line.item,
                label: line.label.as_deref(),
                outcome,
            };
            (serde_json::to_string(&row).unwrap_or_default(), is_error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_windows_writes_them() {
        let text = "\u{feff}a/1.jpg\tdotted\r\n\r\na/2.jpg\r\n";
        let found: Vec<Line> = lines(text.as_bytes(), Arc::default()).collect();
        assert_eq!(found, [Line::parse("a/1.jpg\tdotted"), Line::parse("a/2.jpg")]);
    }

    #[test]
    fn an_input_that_breaks_off_is_not_taken_for_a_short_one() {
        struct Unplugged;
        impl Read for Unplugged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("unplugged"))
            }
        }
        let (whole, broken) = (Arc::default(), Arc::default());
        assert_eq!(lines(&b"a/1.jpg\n"[..], Arc::clone(&whole)).count(), 1);
        assert!(whole.get().is_none());
        let input = io::BufReader::new(b"a/1.jpg\na/2".as_slice().chain(Unplugged));
        assert_eq!(lines(input, Arc::clone(&broken)).count(), 1);
        assert_eq!(broken.get().map(ToString::to_string).as_deref(), Some("unplugged"));
    }

    #[test]
    fn what_a_data_set_keeps_beside_its_images_is_known_by_its_folder() {
        for (text, expected) in [
            ("photos/.ikat/excluded/dotted/1.jpg", true),
            ("./.ikat/1.jpg\tdotted", true),
            ("s3://bucket/photos/.ikat/1.jpg", true),
            ("/home/u/.data/photos/dotted/1.jpg", false),
            ("photos/dotted/.ikat", false),
            ("photos/my.ikat/1.jpg", false),
            ("1.jpg", false),
        ] {
            assert_eq!(Line::parse(text).is_set_aside(), expected, "{text}");
        }
    }
}
