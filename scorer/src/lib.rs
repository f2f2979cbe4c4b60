//! The scoring function: loads a published model once and classifies images on request.

mod configuration;
mod http;
mod images;
mod items;
mod lambda;
mod log;
mod origin;
mod responder;
mod rollout;
mod startup;
mod watchdog;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use configuration::{Arguments, Carrier, Configuration, ConfigurationError};
use responder::Responder;

pub use lambda::examine as examine_event;

/// How long work that nobody waits for any more may take to end, once the process is to.
const ENDING: Duration = Duration::from_secs(2);

/// Runs the program with the arguments and the environment that it was started with.
pub fn run() -> ExitCode {
    let arguments = configuration::parse();
    log_to_stderr();
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the scorer stops");
            if error.is::<ConfigurationError>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn serve(arguments: Arguments) -> Result<(), Failure> {
    let (configuration, carrier) = Configuration::resolve(arguments)?;
    // Images are scored by threads of their own. What carries requests to them is not worth a second thread, which each
    // event would have to wake.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let responder = Arc::new(Responder::new(configuration));
        match carrier {
            Carrier::Lambda => {
                responder.load(lambda::ready_by()).await;
                lambda::serve(responder).await
            }
            Carrier::Http(address) => http::serve(responder, address).await,
        }
    });
    // A process that ends within ONNX Runtime may crash there: what is nearly done may end. Images of requests that
    // were given up, or a disk that does not answer, may take for ever, and nobody waits for them any more.
    runtime.shutdown_timeout(ENDING);
    served
}

/// One JSON object a line. `IKAT_LOG` chooses what is said, as in `IKAT_LOG=debug`.
fn log_to_stderr() {
    let (filter, warning) = configuration::log_filter(&std::env::var("IKAT_LOG").unwrap_or_default());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
}
