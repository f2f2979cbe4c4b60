//! What the environment says of Amazon's services, or of the servers that stand in for them.

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_types::service_config::ServiceConfigKey;

/// The region of a server that has none.
const DEFAULT_REGION: &str = "us-east-1";
/// Names another server for all services; with the name of a service behind it, for that one alone.
const ENDPOINT_VARIABLE: &str = "AWS_ENDPOINT_URL";
/// The same in a profile, or in the section of a service that it names.
const ENDPOINT_KEY: &str = "endpoint_url";

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
    /// as every AWS tool takes them. `service` is the name of one in variables, such as `S3`. `None` where there is no
    /// region, which matters to Amazon's own servers alone.
    pub async fn load(service: &str) -> Option<Self> {
        let elsewhere = [format!("{ENDPOINT_VARIABLE}_{service}").as_str(), ENDPOINT_VARIABLE]
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
        let elsewhere = elsewhere || is_elsewhere(&settings, service);
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

/// Whether a profile names another server for `service`.
fn is_elsewhere(settings: &SdkConfig, service: &str) -> bool {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env(ENDPOINT_VARIABLE)
        .profile(ENDPOINT_KEY)
        .build();
    let configured = settings.service_config().zip(key.ok());
    configured.is_some_and(|(configured, key)| configured.load_config(key).is_some_and(|url| !url.is_empty()))
}
