//! What a method and a path ask for.

use percent_encoding::percent_decode_str;

use super::error::{ErrorCode, ServiceError};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Standing(Standing),
    /// Whether there is a model to answer with.
    Ready,
    Model,
    Score,
    /// A route of the Open Inference Protocol that needs a model.
    Inference(Inference),
}

/// What is answered however busy the process is and whatever it has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Whether the process answers at all.
    Live,
    OpenApi,
    /// What serves, in the words of the Open Inference Protocol.
    Server,
    /// As `Live`, in those words.
    InferenceLive,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inference {
    Ready,
    Model(ModelPath),
    ModelReady(ModelPath),
    Infer(ModelPath),
}

/// The model that a path of the Open Inference Protocol names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelPath {
    pub(super) name: String,
    pub(super) version: Option<String>,
}

impl Route {
    /// Whether it asks for nothing but whether there is a model.
    pub(super) fn is_readiness(&self) -> bool {
        matches!(
            self,
            Self::Ready | Self::Inference(Inference::Ready | Inference::ModelReady(_))
        )
    }

    /// The methods that it takes.
    fn methods(&self) -> &'static str {
        match self {
            Self::Score | Self::Inference(Inference::Infer(_)) => "POST",
            Self::Standing(_)
            | Self::Ready
            | Self::Model
            | Self::Inference(Inference::Ready | Inference::Model(_) | Inference::ModelReady(_)) => "GET, HEAD",
        }
    }

    fn takes(&self, method: &str) -> bool {
        self.methods().split(", ").any(|taken| taken == method)
    }
}

/// The route of a request. An image may be posted to any path that means nothing else: what a gateway puts
/// before or behind its own does not matter.
///
/// # Errors
/// `not_found` and `method_not_allowed`.
pub(super) fn find(method: &str, path: &str) -> Result<Route, ServiceError> {
    let route = of_path(path).map_or_else(|| unnamed(method, path), Ok)?;
    if route.takes(method) {
        return Ok(route);
    }
    Err(ServiceError::new(
        ErrorCode::MethodNotAllowed,
        format!("{path} does not take {method}, but {}", route.methods()),
    ))
}

/// The `Allow` header for a path.
pub(super) fn allowed(path: &str) -> &'static str {
    of_path(path).unwrap_or(Route::Score).methods()
}

/// Whether a path belongs to the Open Inference Protocol, whose errors have a form of their own.
pub(super) fn is_inference(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

fn unnamed(method: &str, path: &str) -> Result<Route, ServiceError> {
    if (method == "GET" || method == "HEAD" || is_inference(path)) && path != "/" && path != "/score" {
        let message = format!(
            "there is nothing at {path}: GET /openapi.json tells what there is; an image is posted to / or /score"
        );
        return Err(ServiceError::new(ErrorCode::NotFound, message));
    }
    Ok(Route::Score)
}

fn of_path(path: &str) -> Option<Route> {
    Some(match path {
        "/health/live" => Route::Standing(Standing::Live),
        "/openapi.json" => Route::Standing(Standing::OpenApi),
        "/v2" | "/v2/" => Route::Standing(Standing::Server),
        "/v2/health/live" => Route::Standing(Standing::InferenceLive),
        "/health/ready" => Route::Ready,
        "/model" => Route::Model,
        "/" | "/score" => Route::Score,
        _ => Route::Inference(inference(path)?),
    })
}

fn inference(path: &str) -> Option<Inference> {
    let parts: Vec<&str> = path.strip_prefix("/v2")?.split('/').collect();
    let model = |name: &str, version: Option<&str>| {
        Some(ModelPath {
            name: percent_decode_str(name).decode_utf8().ok()?.into_owned(),
            version: version.map(str::to_owned),
        })
    };
    Some(match parts.as_slice() {
        ["", "health", "ready"] => Inference::Ready,
        ["", "models", name] => Inference::Model(model(name, None)?),
        ["", "models", name, "ready"] => Inference::ModelReady(model(name, None)?),
        ["", "models", name, "infer"] => Inference::Infer(model(name, None)?),
        ["", "models", name, "versions", version] => Inference::Model(model(name, Some(version))?),
        ["", "models", name, "versions", version, "ready"] => Inference::ModelReady(model(name, Some(version))?),
        ["", "models", name, "versions", version, "infer"] => Inference::Infer(model(name, Some(version))?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_they_say() {
        let path = |name: &str, version: Option<&str>| ModelPath {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        };
        for (method, at, route) in [
            ("GET", "/health/live", Route::Standing(Standing::Live)),
            ("HEAD", "/health/ready", Route::Ready),
            ("POST", "/", Route::Score),
            ("POST", "/prod/anything", Route::Score),
            ("GET", "/v2", Route::Standing(Standing::Server)),
            ("GET", "/v2/", Route::Standing(Standing::Server)),
            ("GET", "/v2/health/live", Route::Standing(Standing::InferenceLive)),
            ("GET", "/v2/health/ready", Route::Inference(Inference::Ready)),
            (
                "GET",
                "/v2/models/a%20b",
                Route::Inference(Inference::Model(path("a b", None))),
            ),
            (
                "POST",
                "/v2/models/m/versions/7/infer",
                Route::Inference(Inference::Infer(path("m", Some("7")))),
            ),
        ] {
            assert_eq!(find(method, at), Ok(route), "{method} {at}");
        }
        for (method, at, code) in [
            ("GET", "/nothing", ErrorCode::NotFound),
            ("GET", "/", ErrorCode::MethodNotAllowed),
            ("DELETE", "/prod", ErrorCode::MethodNotAllowed),
            ("POST", "/model", ErrorCode::MethodNotAllowed),
            ("POST", "/v2/models", ErrorCode::NotFound),
            ("GET", "/v2/models/m/infer", ErrorCode::MethodNotAllowed),
            ("GET", "/v2/models/%ff", ErrorCode::NotFound),
        ] {
            assert_eq!(find(method, at).map_err(|error| error.code), Err(code), "{method} {at}");
        }
        assert_eq!((allowed("/model"), allowed("/x")), ("GET, HEAD", "POST"));
    }
}
