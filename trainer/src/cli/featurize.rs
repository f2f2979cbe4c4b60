use std::io::{self, BufReader, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::Session;
use super::failure::{Done, Failure};
use super::network::NetworkArguments;
use super::resources::Resources;
use crate::counted::counted;
use crate::dataset::OWN_FOLDER;
use crate::device::Device;
use crate::feature_rows::{self, Counts, Featurization, Line, RowsError};
use crate::features::{CacheKey, Networks};

/// Compute features of images as rows, one line of JSON each, for `trainer train --features`.
///
/// For data sets that more than one machine works on: an engine such as Apache Spark pipes addresses through as many
/// of these as it likes (infra/featurize_spark.py), and one training reads all their rows. A line is the path of a
/// file, s3://bucket/key, or an http(s) address; a tab and a label may follow, or else the folders name the classes.
/// Rows come in the order of the lines; an image at fault has a row that says why. With --json they are one JSON array,
/// which is for scripts: a training reads lines.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Images
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Read a line for each image from standard input; what lies in a folder `.ikat`, where a data set keeps what was
    /// set aside, is passed over
    #[arg(long, conflicts_with = "images")]
    stdin: bool,
    /// Also ask addresses in private networks
    #[arg(long)]
    allow_private: bool,
    /// Where the network runs: cpu, or CUDA devices by number as in cuda:0 and cuda:0,1
    #[arg(long, default_value = "cpu")]
    device: Device,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    resources: Resources,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    // The parser, which could ask for them too, does not see what a parameter file sets.
    if arguments.images.is_empty() && !arguments.stdin {
        return Err(Failure::usage(
            "name images, or give --stdin to read a line for each from standard input",
        ));
    }
    arguments.device.check(false)?;
    if arguments.device == Device::Wgpu {
        session.note("Features are computed on the processor: for that only CUDA devices can be used");
    }
    let cache = session.cache()?;
    let runtime = Resources::runtime_for(&arguments.device, &cache, session)?;
    let backbone = arguments.network.obtain(&runtime, &cache, session)?;
    let model = std::fs::read(&backbone.onnx)?;
    let featurization = Featurization {
        networks: &Networks::new(&runtime, &model, &arguments.device),
        key: &CacheKey::new(&backbone.sha256, &backbone.preprocessing),
        preprocessing: &backbone.preprocessing,
        limits: arguments.resources.limits(),
        threads: arguments.resources.threads(),
        allow_private: arguments.allow_private,
    };
    let set_aside = Arc::new(AtomicU64::new(0));
    let broken = Arc::new(OnceLock::new());
    let lines = arguments.lines(session, &set_aside, &broken);
    let written = if session.output.is_json() {
        let mut array = Array::new(io::stdout());
        let written = feature_rows::write(lines, &featurization, &mut array, &session.progress);
        written.and_then(|counts| array.finish().map(|()| counts).map_err(RowsError::from))
    } else {
        feature_rows::write(lines, &featurization, io::stdout(), &session.progress)
    };
    let passed_over = set_aside.load(Ordering::Relaxed);
    if passed_over > 0 {
        session.note(&format!(
            "Passed over {} in a folder {OWN_FOLDER}",
            counted(passed_over, "file", "files")
        ));
    }
    if let (Ok(counts), Some(error)) = (&written, broken.get()) {
        return Err(Failure::failed(format!(
            "standard input broke off: {error}; {} written",
            counted(counts.rows, "row was", "rows were")
        )));
    }
    arguments.done(written, session)
}

impl Arguments {
    /// The images that are named, or those of the lines on standard input. What lies where a data set keeps what was
    /// set aside is passed over and counted in `set_aside`; where the input breaks off, `broken` tells why.
    fn lines(
        &self,
        session: &Session,
        set_aside: &Arc<AtomicU64>,
        broken: &Arc<OnceLock<io::Error>>,
    ) -> Box<dyn Iterator<Item = Line> + Send> {
        if !self.stdin {
            let lines: Vec<Line> = self.images.iter().map(|image| Line::parse(image)).collect();
            return Box::new(lines.into_iter());
        }
        if io::stdin().is_terminal() {
            session.remark("Reading the addresses of images from the terminal, one a line; Ctrl-D ends it");
        }
        let set_aside = Arc::clone(set_aside);
        let lines = feature_rows::lines(BufReader::new(io::stdin()), Arc::clone(broken));
        Box::new(lines.filter(move |line| {
            let passed_over = line.is_set_aside();
            set_aside.fetch_add(passed_over.into(), Ordering::Relaxed);
            !passed_over
        }))
    }

    /// What is said of the rows that were `written`.
    fn done(&self, written: Result<Counts, RowsError>, session: &Session) -> Result<Done, Failure> {
        match written {
            Ok(Counts { errors: 0, rows }) => {
                session.remark(&counted(rows, "row", "rows"));
                Ok(Done::Complete)
            }
            // What comes by standard input is often a part of a larger job, which is not to fail by one part.
            Ok(Counts { errors, rows }) if errors == rows && !self.stdin => {
                Err(Failure::failed("none of the images has features: the rows say why"))
            }
            Ok(Counts { errors, rows }) => {
                session.note(&format!(
                    "{}; {errors} of them say why an image has no features",
                    counted(rows, "row", "rows")
                ));
                Ok(Done::Partly)
            }
            // Whoever reads the rows has had enough.
            Err(RowsError::Stream(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Done::Complete),
            Err(error) => Err(error.into()),
        }
    }
}

/// One JSON array of the lines of JSON that are written to it.
struct Array<W> {
    output: W,
    /// What comes before the next bytes.
    due: &'static [u8],
}

impl<W: Write> Array<W> {
    const BEGIN: &'static [u8] = b"[";

    fn new(output: W) -> Self {
        Self {
            output,
            due: Self::BEGIN,
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.due == Self::BEGIN {
            self.output.write_all(Self::BEGIN)?;
        }
        self.output.write_all(b"]\n")?;
        self.output.flush()
    }
}

impl<W: Write> Write for Array<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.output.write_all(std::mem::take(&mut self.due))?;
            let whole = line.strip_suffix(b"\n");
            self.output.write_all(whole.unwrap_or(line))?;
            if whole.is_some() {
                self.due = b",\n";
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_an_array_however_they_are_written() {
        for (parts, expected) in [
            (&["{}\n"][..], "[{}]\n"),
            (&["{\"a\"", ":1}", "\n", "{}\n{}\n"][..], "[{\"a\":1},\n{},\n{}]\n"),
            (&[][..], "[]\n"),
        ] {
            let mut bytes = Vec::new();
            let mut array = Array::new(&mut bytes);
            for part in parts {
                array.write_all(part.as_bytes()).expect("memory");
            }
            array.finish().expect("memory");
            assert_eq!(String::from_utf8_lossy(&bytes), expected);
        }
    }
}
