//! The annotation page and what it asks for, over HTTP on loopback.
//!
//! Every request must carry the token of this start and be addressed to this very host and port: another page that the
//! same browser shows can neither read nor change anything, whatever its name resolves to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Parameters, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use rand::RngExt;
use serde::Deserialize;
use serde_json::json;
use shared::files::hex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::desk::{Desk, DeskError, Query};
use super::thumbnails::Thumbnails;
use crate::dataset::DatasetError;
use crate::threads::lock;

const PAGE: &str = include_str!("../../templates/annotate.html");
const STYLE: &str = include_str!("../../templates/annotate.css");
const SCRIPT: &str = include_str!("../../templates/annotate.js");
/// Header that carries the token.
const TOKEN: &str = "x-ikat-token";
/// The longest refusal of axum's own that is passed on, in bytes.
const MOST_SAID: usize = 16 << 10;
const POLICY: &str = "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page that is ready to be shown.
pub struct Site {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

struct App {
    desk: Mutex<Desk>,
    thumbnails: Thumbnails,
    token: String,
    hosts: [String; 2],
    /// Images decoded at once.
    decoding: Semaphore,
}

impl Site {
    /// Listens on loopback, at `port` or at any free one for 0.
    ///
    /// # Errors
    /// What the system says of the port.
    pub async fn bind(desk: Desk, thumbnails: Thumbnails, port: u16, threads: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let token: [u8; 16] = rand::rng().random();
        let app = App {
            desk: Mutex::new(desk),
            thumbnails,
            token: hex(&token),
            hosts: hosts(address.port()),
            decoding: Semaphore::new(threads.max(1)),
        };
        Ok(Self {
            listener,
            address,
            app: Arc::new(app),
        })
    }

    /// The page's address, with the token of this start.
    pub fn url(&self) -> String {
        format!("http://{}/?token={}", self.address, self.app.token)
    }

    /// Answers until `stop` is ready.
    ///
    /// # Errors
    /// What the system says of the connection.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let router = Router::new()
            .route("/", get(page))
            .route(
                "/annotate.css",
                get(|| async { ([(header::CONTENT_TYPE, "text/css")], STYLE) }),
            )
            .route(
                "/annotate.js",
                get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], SCRIPT) }),
            )
            .route("/api/images", get(images))
            .route("/api/relabel", post(relabel))
            .route("/api/exclude", post(exclude))
            .route("/api/class", post(class))
            .route("/api/undo", post(undo))
            .route("/api/redo", post(redo))
            .route("/thumbnail", get(thumbnail))
            .route("/picture", get(picture))
            .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is nothing at this address") })
            .layer(middleware::from_fn_with_state(Arc::clone(&self.app), guard))
            .with_state(self.app);
        axum::serve(self.listener, router).with_graceful_shutdown(stop).await
    }
}

#[derive(Deserialize)]
struct Credentials {
    token: Option<String>,
}

/// Lets only those in who know the token and speak to this host.
async fn guard(
    State(app): State<Arc<App>>,
    given: Result<Parameters<Credentials>, QueryRejection>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let own_host = text(header::HOST).is_some_and(|host| app.hosts.iter().any(|own| own == host));
    let own_origin = text(header::ORIGIN)
        .is_none_or(|origin| app.hosts.iter().any(|own| origin.strip_prefix("http://") == Some(own)));
    let token = header_token(headers).or(given.ok().and_then(|Parameters(given)| given.token));
    let known = token.is_some_and(|token| same(token.as_bytes(), app.token.as_bytes()));
    if !(own_host && own_origin && known) {
        return refusal(
            StatusCode::FORBIDDEN,
            "open the address that the trainer printed: it holds a token",
        );
    }
    let mut response = in_json(next.run(request).await).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// What a browser calls this machine and port: it leaves out the port that is that of the web anyway.
pub(super) fn hosts(port: u16) -> [String; 2] {
    ["127.0.0.1", "localhost"].map(|name| match port {
        80 => name.to_owned(),
        port => format!("{name}:{port}"),
    })
}

fn header_token(headers: &HeaderMap) -> Option<String> {
    headers.get(TOKEN)?.to_str().ok().map(str::to_owned)
}

/// Compares without telling by the time how much agrees.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// The same answer; a refusal that axum wrote gets the form of the others, which the page reads.
async fn in_json(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = to_bytes(body, MOST_SAID).await.unwrap_or_default();
    let message = match String::from_utf8_lossy(&said) {
        said if said.is_empty() => status.to_string(),
        said => said.into_owned(),
    };
    let mut refused = refusal(status, &message);
    if let Some(methods) = parts.headers.get(header::ALLOW) {
        refused.headers_mut().insert(header::ALLOW, methods.clone());
    }
    refused
}

#[derive(Deserialize)]
struct Change {
    images: Vec<String>,
    #[serde(default)]
    label: String,
}

#[derive(Deserialize)]
struct Label {
    label: String,
}

#[derive(Deserialize)]
struct Revision {
    revision: u64,
}

#[derive(Deserialize)]
struct Wanted {
    path: String,
}

async fn page(State(app): State<Arc<App>>) -> Html<String> {
    Html(PAGE.replace("TOKEN", &app.token))
}

async fn images(State(app): State<Arc<App>>, Parameters(query): Parameters<Query>) -> Response {
    on_desk(app, move |desk| Ok(desk.page(&query))).await
}

async fn relabel(State(app): State<Arc<App>>, Json(change): Json<Change>) -> Response {
    on_desk(app, move |desk| desk.relabel(&change.images, &change.label)).await
}

async fn exclude(State(app): State<Arc<App>>, Json(change): Json<Change>) -> Response {
    on_desk(app, move |desk| desk.exclude(&change.images)).await
}

async fn class(State(app): State<Arc<App>>, Json(label): Json<Label>) -> Response {
    on_desk(app, move |desk| desk.add_class(&label.label)).await
}

async fn undo(State(app): State<Arc<App>>, Json(given): Json<Revision>) -> Response {
    on_desk(app, move |desk| desk.undo(given.revision)).await
}

async fn redo(State(app): State<Arc<App>>, Json(given): Json<Revision>) -> Response {
    on_desk(app, move |desk| desk.redo(given.revision)).await
}

/// Files are moved on a thread of their own, one change after the other.
async fn on_desk<T: serde::Serialize + Send + 'static>(
    app: Arc<App>,
    work: impl FnOnce(&mut Desk) -> Result<T, DeskError> + Send + 'static,
) -> Response {
    let done = tokio::task::spawn_blocking(move || work(&mut lock(&app.desk)));
    match done.await {
        Ok(Ok(reply)) => Json(reply).into_response(),
        Ok(Err(error)) => {
            let status = match &error {
                DeskError::Label(_)
                | DeskError::ExcludedClash { .. }
                | DeskError::Dataset(DatasetError::CaseClash { .. }) => StatusCode::BAD_REQUEST,
                DeskError::Stale | DeskError::NoStep(_) => StatusCode::CONFLICT,
                DeskError::Dataset(_) | DeskError::Journal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refusal(status, &error.to_string())
        }
        Err(_) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the change failed; look at the terminal",
        ),
    }
}

async fn thumbnail(State(app): State<Arc<App>>, Parameters(wanted): Parameters<Wanted>) -> Response {
    image(app, wanted, Thumbnails::small).await
}

async fn picture(State(app): State<Arc<App>>, Parameters(wanted): Parameters<Wanted>) -> Response {
    image(app, wanted, Thumbnails::large).await
}

async fn image(
    app: Arc<App>,
    wanted: Wanted,
    draw: fn(&Thumbnails, &std::path::Path) -> Result<Vec<u8>, String>,
) -> Response {
    // Only what is on the desk is shown, whatever path is asked for.
    let path = lock(&app.desk).locate(&wanted.path);
    let Some(path) = path else {
        return refusal(StatusCode::NOT_FOUND, "no image of this data set");
    };
    let Ok(_permit) = app.decoding.acquire().await else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "closing");
    };
    let thumbnails = app.thumbnails.clone();
    match tokio::task::spawn_blocking(move || draw(&thumbnails, &path)).await {
        Ok(Ok(jpeg)) => ([(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response(),
        Ok(Err(reason)) => refusal(StatusCode::NOT_FOUND, &reason),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "its decoder failed"),
    }
}
