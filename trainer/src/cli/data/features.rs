//! Features for commands that look at images rather than train on them.

use crate::cli::Session;
use crate::cli::failure::Failure;
use crate::cli::network::NetworkArguments;
use crate::cli::resources::Resources;
use crate::dataset::Dataset;
use crate::features::Features;

/// The network that the features come from.
#[derive(Debug, clap::Args)]
pub struct FeatureArguments {
    #[command(flatten)]
    network: NetworkArguments,
}

impl FeatureArguments {
    /// The part of `dataset` that the network can read, with features of length 1; groups are of images whose hashes
    /// differ in at most `distance` bits of 256.
    pub fn compute(
        &self,
        dataset: &Dataset,
        distance: u32,
        resources: &Resources,
        session: &Session,
    ) -> Result<(Dataset, Features), Failure> {
        let cache = session.cache()?;
        let runtime = Resources::runtime(&cache, session)?;
        let backbone = self.network.obtain(&runtime, &cache, session)?;
        let workplace = resources.workplace(&runtime, &cache, session);
        let (dataset, features) = workplace.featurize(dataset, &backbone, resources.limits(), distance)?;
        let rows: Vec<usize> = (0..features.labels.len()).collect();
        Ok((dataset, features.normalized_rows(&rows)))
    }
}
