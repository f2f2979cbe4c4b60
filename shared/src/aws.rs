//! What the environment says of Amazon's services, or of the servers that stand in for them.

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};

/// The region of a server that has none.
const DEFAULT_REGION: &str = "us-east-1";
/// Names another server for all services.
const ENDPOINT_VARIABLE: &str = "AWS_ENDPOINT_URL";

/// Credentials, region and endpoint.
#[derive(Debug, Clone)]
pub struct Environment {
    /// For the clients of the SDK.
    pub settings: SdkConfig,
    /// Whether another server than Amazon's is named.
    pub elsewhere: bool,
}

impl Environment {
    /// Credentials, region and endpoint from the environment, the shared configuration files or the machine's role,
    /// as every AWS tool takes them. `variable` names the server of one service alone, such as
    /// `AWS_ENDPOINT_URL_S3`. `None` where there is no region, which matters to Amazon's own servers alone.
    pub async fn load(variable: &str) -> Option<Self> {
        let elsewhere = [variable, ENDPOINT_VARIABLE]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        // Asking the machine's metadata service for a region takes seconds where there is none.
        let region = if elsewhere {
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
                .or_else(Region::from_static(DEFAULT_REGION))
        } else {
            RegionProviderChain::default_provider()
        };
        let settings = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            .load()
            .await;
        let elsewhere = elsewhere || settings.endpoint_url().is_some();
        match settings.region() {
            Some(_) => Some(Self { settings, elsewhere }),
            None if elsewhere => Some(Self {
                settings: settings
                    .into_builder()
                    .region(Region::from_static(DEFAULT_REGION))
                    .build(),
                elsewhere,
            }),
            None => None,
        }
    }
}
