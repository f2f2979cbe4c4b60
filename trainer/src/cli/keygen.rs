use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Session;
use super::failure::{Done, Failure};
use super::output::printable_path;
use crate::shell;
use crate::signing::SigningKey;

/// Make a pair of keys for signing bundles.
///
/// The private key (Ed25519, PKCS #8 PEM) goes into a file that its owner alone can read: keep it where models are
/// published. The public key is printed, alone with --quiet. Where models are served, set it as IKAT_TRUSTED_KEY: then
/// only those that the private key has signed are served.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// File for the private key; must not exist
    #[arg(long, value_name = "KEYFILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(serialize_with = "crate::dataset::as_text")]
    private_key: &'a Path,
    public_key: String,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result<Done, Failure> {
    let key = SigningKey::generate();
    key.write(&arguments.out)
        .map_err(|error| Failure::hinted(&error, "choose another file with --out"))?;
    let document = Document {
        private_key: &arguments.out,
        public_key: key.public(),
    };
    let file = printable_path(&arguments.out);
    let public = &document.public_key;
    // A script wants the key alone: PUBLIC=$(trainer keygen --quiet --out FILE).
    let text = if session.output.is_quiet() {
        public.clone()
    } else {
        format!("Private key:  {file}\nPublic key:   {public}")
    };
    let hint = format!(
        "\n\nSign:   trainer publish --sign {} ...\nTrust:  IKAT_TRUSTED_KEY={public} scorer ...",
        shell::quote(&arguments.out)
    );
    session.output.result_with_hint(&document, &text, &hint)?;
    Ok(Done::Complete)
}
