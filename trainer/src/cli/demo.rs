use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use shared::bundle::ClassifierKind;

use super::Session;
use super::failure::{Done, Failure};
use super::location::{block_on, store};
use super::output::printable_path;
use super::resources::{Resources, claim_folder};
use crate::backbone;
use crate::dataset::{Dataset, SplitParameters, hidden_below};
use crate::demo::{self, DemoClass};
use crate::destination::check_vacant;
use crate::evaluation::{self, Metrics};
use crate::training::{self, Parameters, Quantization};
use crate::{publish, report, scoring, svm};

/// Name of the demo's model.
const NAME: &str = "clothing-texture";
/// What the demo makes in its folder; a repeated one adds a run with a number behind [`RUN`].
const DATA: &str = "data";
const IMAGE: &str = "new-image.jpg";
const RUN: &str = "run";
const STORE: &str = "store";

/// See the whole way at work: draw images, train, evaluate, publish, score.
///
/// Draws photos of garments with three textures (dotted, striped, leopard), trains a classifier on them,
/// publishes it to a folder, and classifies an image that was not in the set, the way the scorer does.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder for everything that demos make; must hold nothing else. Another demo adds a run
    #[arg(long, value_name = "DIR", default_value = "ikat-demo")]
    dir: PathBuf,
    /// Images per class
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=10_000))]
    per_class: u32,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    resources: Resources,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    data: &'a Path,
    #[serde(serialize_with = "crate::dataset::as_text")]
    run: &'a Path,
    #[serde(serialize_with = "crate::dataset::as_text")]
    report: &'a Path,
    #[serde(serialize_with = "crate::dataset::as_text")]
    model: &'a Path,
    version: &'a str,
    #[serde(serialize_with = "crate::dataset::as_text")]
    image: &'a Path,
    answer: serde_json::Value,
    metrics: &'a Metrics,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let dir = &arguments.dir;
    check_own(dir)?;
    let data = dir.join(DATA);
    demo::generate(&data, arguments.per_class, arguments.seed, &session.progress)?;
    let image = dir.join(IMAGE);
    demo::write(&image, DemoClass::Striped, arguments.per_class, arguments.seed)?;

    let dataset = Dataset::scan(&data)?;
    let cache = session.cache()?;
    let runtime = Resources::runtime(&cache, session)?;
    let network = backbone::obtain(backbone::DEFAULT, None, None, &cache, &session.progress)?;
    let parameters = Parameters {
        classifier: ClassifierKind::Svm,
        recipe: None,
        name: NAME.to_owned(),
        limits: arguments.resources.limits(),
        split: SplitParameters {
            seed: arguments.seed,
            ..SplitParameters::default()
        },
        svm: svm::Parameters {
            seed: arguments.seed,
            ..svm::Parameters::default()
        },
        fold_batch_norm: true,
        quantization: Quantization::None,
        golden_images: 4,
    };
    let workplace = arguments.resources.workplace(&runtime, &cache, session);
    let trained = training::train(&dataset, &network, &parameters, &workplace)?;
    let run = vacant(dir)?;
    let _claim = claim_folder(&run, &cache, "choose another folder with --dir")?;
    let report = trained.save(Some(&run), report::DEFAULT_PICTURES, &workplace)?.report();

    let models = dir.join(STORE);
    let model = models.join(NAME);
    let (published, answer) = block_on(async {
        let objects = store(&models.to_string_lossy()).await?;
        let published = publish::publish(&objects, &trained.bundle, NAME).await?;
        let served = shared::store::source::open(&model.to_string_lossy(), None).await?;
        let answer = scoring::ask(&served, &runtime, parameters.limits, &std::fs::read(&image)?)?;
        Ok::<_, Failure>((published, answer))
    })??;

    let text = format!(
        "{table}\n\
        The new image {image} is {label} (score {score:.3}, {decision}).\n\n\
        Images:   {data}\nRun:      {run}\nReport:   {report}\nModel:    {model}, version {version}",
        table = evaluation::table(&trained.metrics.evaluation),
        image = printable_path(&image),
        label = answer["label"].as_str().unwrap_or_default(),
        score = answer["score"].as_f64().unwrap_or_default(),
        decision = answer["decision"].as_str().unwrap_or_default(),
        data = printable_path(&data),
        run = printable_path(&run),
        report = printable_path(&report),
        model = printable_path(&model),
        version = published.version,
    );
    let document = Document {
        data: &data,
        run: &run,
        report: &report,
        model: &model,
        version: &published.version,
        image: &image,
        answer,
        metrics: &trained.metrics,
    };
    let hint = "\n\nNext, with your own images in class folders:\n  trainer train --data DIR --out my-run";
    session.output.result_with_hint(&document, &text, hint)?;
    Ok(Done::Complete)
}

/// Refuses a folder that holds what the demo does not make: it is somebody's, a data set for example. What is hidden
/// may be left there by a system, or by a demo that was cut short.
fn check_own(dir: &Path) -> Result<(), Failure> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::failed(format!("{}: {error}", dir.display()))),
    };
    for entry in entries {
        let name = entry?.file_name();
        if !hidden_below(Path::new(&name)) && !is_ours(&name.to_string_lossy()) {
            return Err(Failure::failed(format!(
                "{} holds {}, which is not the demo's: choose a folder that is empty or not there yet with --dir",
                dir.display(),
                Path::new(&name).display()
            )));
        }
    }
    Ok(())
}

/// Whether the demo makes something of this name.
fn is_ours(name: &str) -> bool {
    let number = name.strip_prefix(RUN).and_then(|rest| rest.strip_prefix('-'));
    [DATA, IMAGE, RUN, STORE].contains(&name) || number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The first of `run`, `run-2`, `run-3` ... that holds nothing yet: a finished run is never overwritten.
fn vacant(dir: &Path) -> Result<PathBuf, Failure> {
    let names = std::iter::once(RUN.to_owned()).chain((2..).map(|number| format!("{RUN}-{number}")));
    names
        .map(|name| dir.join(name))
        .take(10_000)
        .find(|path| check_vacant(path).is_ok())
        .ok_or_else(|| Failure::usage(format!("{} holds too many runs", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_stays_out_of_folders_that_hold_something_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        assert!(check_own(&dir.join("none")).is_ok());
        for name in [DATA, STORE, RUN, "run-2", ".ikat-run-x"] {
            std::fs::create_dir(dir.join(name)).expect("a folder");
        }
        std::fs::write(dir.join(IMAGE), "").expect("written");
        assert!(check_own(dir).is_ok());
        for name in ["striped", "running", "run-x"] {
            std::fs::create_dir(dir.join(name)).expect("a folder");
            let text = check_own(dir).expect_err(name).text();
            assert!(
                text.contains(&format!("holds {name}, ")) && text.contains("--dir"),
                "{text}"
            );
            std::fs::remove_dir(dir.join(name)).expect("removed");
        }
        assert!(check_own(&dir.join(IMAGE)).is_err());
    }
}
