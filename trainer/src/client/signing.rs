//! Signatures of Amazon's version 4, which function URLs with `AWS_IAM` ask for.

use std::time::SystemTime;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::{Region, provider_config::ProviderConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};

use super::ClientError;

/// The service that function URLs belong to.
const LAMBDA: &str = "lambda";

/// Puts signatures into requests.
#[derive(Debug, Clone)]
pub struct Signer {
    credentials: Credentials,
    region: String,
    service: String,
}

impl Signer {
    /// A signer with these credentials, for a service (as signatures name it, such as `lambda`) in `region`.
    pub fn new(credentials: Credentials, region: &str, service: &str) -> Self {
        Self {
            credentials,
            region: region.to_owned(),
            service: service.to_owned(),
        }
    }

    /// A signer for the function at `endpoint` with the credentials that every AWS tool would take: of the
    /// environment, of a profile, of the machine's role. The region is `region`, else the one in a function URL, else
    /// that of the environment or the profile.
    ///
    /// # Errors
    /// [`ClientError::NoRegion`] and [`ClientError::NoCredentials`].
    pub async fn find(endpoint: &Url, region: Option<&str>) -> Result<Self, ClientError> {
        let named = region.or_else(|| region_of_function_url(endpoint));
        let named = named.map(|region| Region::new(region.to_owned()));
        let region = match named {
            Some(region) => Some(region),
            None => RegionProviderChain::default_provider().region().await,
        };
        let region = region.ok_or_else(|| ClientError::NoRegion {
            endpoint: endpoint.to_string(),
        })?;
        let chain = DefaultCredentialsChain::builder()
            .configure(ProviderConfig::default().with_region(Some(region.clone())))
            .build()
            .await;
        let credentials = chain
            .provide_credentials()
            .await
            .map_err(|error| ClientError::NoCredentials {
                reason: error.to_string(),
            })?;
        Ok(Self::new(credentials, region.as_ref(), LAMBDA))
    }

    /// Signs `request`, whose body will be `body`, as of now.
    ///
    /// # Errors
    /// [`ClientError::Signature`].
    pub fn sign(&self, request: &mut reqwest::Request, body: &[u8]) -> Result<(), ClientError> {
        let headers = self.headers(request, body, SystemTime::now())?;
        request.headers_mut().extend(headers);
        Ok(())
    }

    /// The headers that make the request at `time` a signed one.
    pub(super) fn headers(
        &self,
        request: &reqwest::Request,
        body: &[u8],
        time: SystemTime,
    ) -> Result<HeaderMap, ClientError> {
        let failed = |error: &dyn std::error::Error| ClientError::Signature(error.to_string());
        let identity = self.credentials.clone().into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(&error))?;
        // The connection adds this header later; the signature must know of it.
        let host = authority(request.url());
        let content_type = request.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let signed = [
            (HOST.as_str(), Some(host.as_str())),
            (CONTENT_TYPE.as_str(), content_type),
        ];
        let signable = SignableRequest::new(
            request.method().as_str(),
            request.url().as_str(),
            signed.into_iter().filter_map(|(name, value)| Some((name, value?))),
            SignableBody::Bytes(body),
        )
        .map_err(|error| failed(&error))?;
        let (instructions, _) = sign(signable, &parameters.into())
            .map_err(|error| failed(&error))?
            .into_parts();
        let (headers, _) = instructions.into_parts();
        headers
            .into_iter()
            .map(|header| {
                let name = HeaderName::from_static(header.name());
                let mut value = HeaderValue::from_str(header.value()).map_err(|error| failed(&error))?;
                value.set_sensitive(true);
                Ok((name, value))
            })
            .collect()
    }
}

/// The region in the address of a function, `https://ID.lambda-url.REGION.on.aws/`; `None` for any other address.
pub fn region_of_function_url(endpoint: &Url) -> Option<&str> {
    let host = endpoint.host_str()?.strip_suffix(".on.aws")?;
    let (id, region) = host.split_once(".lambda-url.")?;
    let plain = |text: &str| !text.is_empty() && !text.contains('.');
    (plain(id) && plain(region)).then_some(region)
}

/// Host and, where it is not the scheme's own, port: the `host` header.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
