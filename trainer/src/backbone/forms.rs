//! The two forms of a network: as it is refined, and as it is run.
//!
//! Batch normalization is something to be trained, and nothing but a factor and a summand where it is run. Without it a
//! network has half of the nodes and is loaded in less time and memory, which is paid at every start of the function.
//! Features are computed by the form that is served, so that nothing separates what a classifier was trained on from
//! what it meets.
//!
//! Both are kept in the cache, as long as they are among those used last.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prost::Message;
use shared::files::{at, write_atomically};

use super::BackboneError;
use crate::onnx::fold_batch_norm;
use crate::onnx::proto::ModelProto;
use crate::setup::{Cache, KEPT, keep_latest};

/// Where the two forms are.
pub(super) struct Forms {
    pub served: PathBuf,
    pub trainable: PathBuf,
}

impl Forms {
    pub fn in_cache(cache: &Cache, stem: &str) -> Self {
        let folder = cache.root().join("backbones");
        Self {
            served: folder.join(format!("{stem}.onnx")),
            trainable: folder.join(format!("{stem}-trainable.onnx")),
        }
    }

    pub fn exist(&self) -> bool {
        self.served.is_file() && self.trainable.is_file()
    }

    /// Lets their times say that they are used now; one that keeps its own is only removed early.
    pub fn touch(&self) {
        for path in [&self.served, &self.trainable] {
            let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    /// Writes `model`, and what becomes of it where it is only run, whose bytes it gives. Networks that were not used
    /// for long give way.
    pub fn write(&self, mut model: ModelProto) -> Result<Vec<u8>, BackboneError> {
        let write = |path: &Path, bytes: &[u8]| write_atomically(path, bytes).map_err(at(path));
        write(&self.trainable, &model.encode_to_vec())?;
        fold_batch_norm(&mut model);
        let served = model.encode_to_vec();
        write(&self.served, &served)?;
        if let Some(folder) = self.served.parent() {
            keep_latest(folder, KEPT, &|path: &Path| path.extension() == self.served.extension());
        }
        Ok(served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::GraphBuilder;

    #[test]
    fn normalization_is_kept_where_it_is_trained_and_folded_where_it_is_run() {
        let mut graph = GraphBuilder::new("normalized");
        let weight = graph.initializer("weight", &[1, 3, 1, 1], &[1.0, 2.0, 3.0]);
        let convolution = graph.node("convolution", "Conv", &["image", &weight], &[]);
        let parameters = ["scale", "shift", "mean", "variance"].map(|name| graph.initializer(name, &[1], &[1.0]));
        let inputs: Vec<&str> = std::iter::once(&convolution)
            .chain(&parameters)
            .map(String::as_str)
            .collect();
        let normal = graph.node("normal", "BatchNormalization", &inputs, &[]);
        let model = graph.finish("image", &[(&normal, &[])], &[]);

        let folder = tempfile::tempdir().expect("a folder");
        let forms = Forms::in_cache(&Cache::at(folder.path()), "tiny");
        assert!(!forms.exist());
        let served = forms.write(model.clone()).expect("written");
        assert!(forms.exist());
        let read = |path: &Path| std::fs::read(path).expect("a network");
        assert_eq!(
            ModelProto::decode(read(&forms.trainable).as_slice()).expect("ONNX"),
            model
        );
        assert_eq!(read(&forms.served), served);
        let used = |path: &Path| path.metadata().and_then(|file| file.modified()).expect("its time");
        let long_ago = SystemTime::UNIX_EPOCH;
        for path in [&forms.served, &forms.trainable] {
            let file = File::options().write(true).open(path).expect("a file");
            file.set_modified(long_ago).expect("its time");
        }
        forms.touch();
        assert!(used(&forms.served) > long_ago && used(&forms.trainable) > long_ago);
        let nodes = ModelProto::decode(served.as_slice())
            .expect("ONNX")
            .graph
            .expect("a graph")
            .node;
        assert_eq!(nodes.len(), 1, "{nodes:?}");
    }
}
