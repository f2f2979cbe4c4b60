//! Amazon's services on the loopback interface: the Python package `ministack`, which creates stacks from templates,
//! runs functions as the real binary, and lets nobody do what its policies do not allow.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;
use shared::store::{ObjectStore, S3Store};
use trainer::client::Signer;
use zip::write::SimpleFileOptions;

use crate::program::{Running, program};
use crate::{REGION, listens, on_free_port, s3_client, tool};

/// Key and secret of the account's root.
const KEY: &str = "test";
/// The bucket of what `sam package` would upload.
const ARTIFACTS: &str = "artifacts";
/// How often a stack is looked at before it counts as stuck, and the time between two looks.
const PATIENCE: u32 = 600;
const TICK: Duration = Duration::from_millis(200);

/// A running emulator, with nothing in it; stopped when dropped, and with it the functions that it runs.
#[derive(Debug)]
pub struct MiniStack {
    // Ends before its folder goes.
    process: Running,
    endpoint: String,
    folder: tempfile::TempDir,
    http: reqwest::Client,
}

/// What is done with a stack.
#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Update,
}

/// What a role may do, and who may take it on.
#[derive(Debug)]
pub struct Role {
    /// The statements on who.
    pub trust: Value,
    /// The statements on what, policy by policy in the order of their names.
    pub statements: Vec<Value>,
}

impl MiniStack {
    /// Starts one on a free port and waits until it answers; `None` with a message where it is not installed.
    ///
    /// # Panics
    /// Where it is not installed although `CI` is set, and where it does not come up.
    pub fn start() -> Option<Self> {
        let program = tool("ministack")?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let endpoint = |port: u16| format!("http://127.0.0.1:{port}");
        let emulate = |port: u16| {
            let log = File::create(folder.path().join("log")).expect("a log");
            let mut command = Command::new(&program);
            for (name, _) in std::env::vars_os() {
                let text = name.to_string_lossy();
                if ["IKAT_", "AWS_", "ORT_"].iter().any(|prefix| text.starts_with(prefix)) {
                    command.env_remove(&name);
                }
            }
            Running::start(
                command
                    .env("MINISTACK_HOST", "127.0.0.1")
                    .env("BIND_HOST", "127.0.0.1")
                    .env("GATEWAY_PORT", port.to_string())
                    .env("LAMBDA_EXECUTOR", "local")
                    // Policies hold, as they do on AWS.
                    .env("AUTH", "true")
                    .env("IOT_MTLS_ENABLED", "false")
                    .env("SFTP_ENABLED", "false")
                    // What a state machine waits before it tries again is a tenth of what the template says.
                    .env("SFN_WAIT_SCALE", "0.1")
                    // Functions reach the emulator by this address.
                    .env("AWS_ENDPOINT_URL", endpoint(port))
                    .env("HOME", folder.path())
                    .env("TMPDIR", folder.path())
                    .env("STATE_DIR", folder.path().join("state"))
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().expect("a second handle"))
                    .stderr(log),
            )
        };
        let (process, port) = on_free_port("ministack", emulate, listens);
        let http = reqwest::Client::builder()
            .timeout(Duration::from_mins(2))
            .build()
            .expect("a client");
        Some(Self {
            process,
            endpoint: endpoint(port),
            folder,
            http,
        })
    }

    /// What it and the functions have said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Environment variables with which the trainer reaches it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// A client for its S3.
    pub fn s3(&self) -> aws_sdk_s3::Client {
        s3_client(&self.endpoint, KEY, KEY)
    }

    /// The store that `s3://bucket/prefix` names. From now on its bucket may be read without TLS, which the template
    /// forbids and the emulator does not speak.
    ///
    /// # Panics
    /// When it names none.
    pub async fn store(&self, place: &str) -> ObjectStore {
        let (bucket, prefix) = place
            .strip_prefix("s3://")
            .and_then(|place| place.split_once('/'))
            .expect("s3://bucket/prefix");
        let open = self.s3().delete_bucket_policy().bucket(bucket).send();
        open.await.expect("a bucket without a policy");
        ObjectStore::S3(S3Store::with_client(self.s3(), bucket, prefix))
    }

    /// Creates a bucket.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn create_bucket(&self, bucket: &str) {
        self.s3().create_bucket().bucket(bucket).send().await.expect("a bucket");
    }

    /// Creates a stack from the deployment's template with the scorer that was built beside the tests, and the ONNX
    /// Runtime library `library`; gives the stack's outputs.
    ///
    /// The emulator mounts no layers for functions of this kind, so that the library goes into the function's own
    /// package, the other place where the scorer looks for it.
    ///
    /// # Panics
    /// When the stack does not become complete.
    pub async fn create_stack(
        &self,
        name: &str,
        library: &Path,
        parameters: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        self.put_stack(Step::Create, name, library, parameters).await
    }

    /// Gives a stack other parameters, all else as in [`Self::create_stack`].
    ///
    /// # Panics
    /// When the stack does not become complete.
    pub async fn update_stack(
        &self,
        name: &str,
        library: &Path,
        parameters: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        self.put_stack(Step::Update, name, library, parameters).await
    }

    async fn put_stack(
        &self,
        step: Step,
        name: &str,
        library: &Path,
        parameters: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let mut form = vec![
            ("StackName".to_owned(), name.to_owned()),
            ("TemplateBody".to_owned(), self.template(library).await),
            ("Capabilities.member.1".to_owned(), "CAPABILITY_IAM".to_owned()),
            ("Capabilities.member.2".to_owned(), "CAPABILITY_AUTO_EXPAND".to_owned()),
        ];
        for (index, (key, value)) in parameters.iter().enumerate() {
            let member = format!("Parameters.member.{}", index + 1);
            form.push((format!("{member}.ParameterKey"), (*key).to_owned()));
            form.push((format!("{member}.ParameterValue"), (*value).to_owned()));
        }
        let (action, state) = match step {
            Step::Create => ("CreateStack", "CREATE"),
            Step::Update => ("UpdateStack", "UPDATE"),
        };
        let answer = self.cloud_formation(action, &form).await;
        assert!(element(&answer, "StackId").is_some(), "{answer}");
        for _ in 0..PATIENCE {
            let described = self.stack(name).await;
            let status = element(&described, "StackStatus").and_then(|status| status.strip_prefix(state));
            match status {
                Some("_COMPLETE") => return outputs(&described),
                Some("_IN_PROGRESS" | "_COMPLETE_CLEANUP_IN_PROGRESS") => {
                    tokio::time::sleep(TICK).await;
                }
                _ => panic!("{described}\n{}", self.log()),
            }
        }
        panic!("{name} is not complete yet: {}", self.log());
    }

    /// The template with the function and the library in place of what `sam package` would upload.
    async fn template(&self, library: &Path) -> String {
        if self.s3().head_bucket().bucket(ARTIFACTS).send().await.is_err() {
            self.create_bucket(ARTIFACTS).await;
        }
        let in_package = ("lib/libonnxruntime.so", library);
        let mut template = std::fs::read_to_string(crate::root().join("infra/template.yaml")).expect("the template");
        for (local, key, files) in [
            (
                "CodeUri: ../scorer",
                "code.zip",
                vec![("bootstrap", program("scorer").as_path()), in_package],
            ),
            ("ContentUri: layer/", "layer.zip", vec![in_package]),
        ] {
            let body = package(&files).into();
            let put = self.s3().put_object().bucket(ARTIFACTS).key(key).body(body);
            put.send().await.expect("uploaded");
            assert!(template.contains(local), "{local} is gone from the template");
            let (property, _) = local.split_once(' ').expect("a property");
            template = template.replace(local, &format!("{property} s3://{ARTIFACTS}/{key}"));
        }
        template
    }

    /// Deletes a stack and waits until it is gone.
    ///
    /// # Panics
    /// When it does not go.
    pub async fn delete_stack(&self, name: &str) {
        let form = [("StackName".to_owned(), name.to_owned())];
        self.cloud_formation("DeleteStack", &form).await;
        for _ in 0..PATIENCE {
            let described = self.stack(name).await;
            if matches!(element(&described, "StackStatus"), None | Some("DELETE_COMPLETE")) {
                return;
            }
            tokio::time::sleep(TICK).await;
        }
        panic!("{name} is still there: {}", self.log());
    }

    /// The address at which the emulator serves the function URL `url`.
    ///
    /// # Panics
    /// When it is none.
    pub fn function_url(&self, url: &str) -> String {
        let id = url.strip_prefix("https://").and_then(|url| url.split('.').next());
        format!("{}/_aws/lambda-url/{}/", self.endpoint, id.expect("a function URL"))
    }

    /// Asks a service that speaks JSON, such as `AWSStepFunctions.StartExecution`.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn ask(&self, service: &str, target: &str, body: &Value) -> Value {
        let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", target)];
        let (status, answer) = self.post(service, &headers, body.to_string()).await;
        assert_eq!(status, 200, "{target}: {answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    async fn stack(&self, name: &str) -> String {
        let form = [("StackName".to_owned(), name.to_owned())];
        self.cloud_formation("DescribeStacks", &form).await
    }

    async fn cloud_formation(&self, action: &str, form: &[(String, String)]) -> String {
        self.query("cloudformation", "2010-05-15", action, form).await
    }

    /// Asks a service that takes forms and answers with XML.
    async fn query(&self, service: &str, version: &str, action: &str, form: &[(String, String)]) -> String {
        let mut encoded = Url::parse(&self.endpoint).expect("an address");
        encoded
            .query_pairs_mut()
            .extend_pairs([("Action", action), ("Version", version)])
            .extend_pairs(form);
        let body = encoded.query().unwrap_or_default().to_owned();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.post(service, &headers, body).await.1
    }

    async fn post(&self, service: &str, headers: &[(&'static str, &str)], body: String) -> (u16, String) {
        let url = Url::parse(&self.endpoint).expect("an address");
        let mut request = reqwest::Request::new(reqwest::Method::POST, url);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header");
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        self.send(service, request, body).await
    }

    /// Sends a request as the account's root.
    async fn send(&self, service: &str, mut request: reqwest::Request, body: String) -> (u16, String) {
        let signer = Signer::new(Credentials::new(KEY, KEY, None, None, "tests"), REGION, service);
        signer.sign(&mut request, body.as_bytes()).expect("signed");
        *request.body_mut() = Some(body.into());
        let response = self.http.execute(request).await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a text"))
    }

    /// The roles of the account, by name.
    ///
    /// # Panics
    /// When one cannot be read.
    pub async fn roles(&self) -> BTreeMap<String, Role> {
        let iam = async |action: &str, role: &str, policy: &str| {
            let form =
                [("RoleName", role), ("PolicyName", policy)].map(|(name, value)| (name.to_owned(), value.to_owned()));
            self.query("iam", "2010-05-08", action, &form).await
        };
        let document = |xml: &str, name: &str| -> Value {
            let text = element(xml, name).expect("a document");
            let text = percent_decode_str(text).decode_utf8().expect("a text");
            serde_json::from_str(&text).expect("JSON")
        };
        let mut roles = BTreeMap::new();
        let listed = iam("ListRoles", "", "").await;
        for role in listed
            .split("<member>")
            .filter_map(|member| element(member, "RoleName"))
        {
            let described = iam("GetRole", role, "").await;
            let policies = iam("ListRolePolicies", role, "").await;
            let mut policies: Vec<&str> = policies
                .split("<member>")
                .skip(1)
                .filter_map(|member| Some(member.split_once("</member>")?.0))
                .collect();
            policies.sort_unstable();
            let mut statements = Vec::new();
            for policy in policies {
                let policy = document(&iam("GetRolePolicy", role, policy).await, "PolicyDocument");
                statements.extend_from_slice(policy["Statement"].as_array().expect("statements"));
            }
            let attached = iam("ListAttachedRolePolicies", role, "").await;
            assert!(!attached.contains("<PolicyArn>"), "{role}: {attached}");
            let trust = document(&described, "AssumeRolePolicyDocument")["Statement"].clone();
            roles.insert(role.to_owned(), Role { trust, statements });
        }
        roles
    }

    /// Whom the policy of the function with this ARN lets in, or that of its alias where the ARN ends with one.
    ///
    /// # Panics
    /// When it cannot be read.
    pub async fn function_policy(&self, arn: &str) -> Option<Value> {
        let (_, function) = arn.split_once(":function:").expect("a function");
        let (name, query) = match function.split_once(':') {
            Some((name, alias)) => (name, format!("?Qualifier={alias}")),
            None => (function, String::new()),
        };
        let path = format!("{}/2015-03-31/functions/{name}/policy{query}", self.endpoint);
        let request = reqwest::Request::new(reqwest::Method::GET, Url::parse(&path).expect("an address"));
        let (status, answer) = self.send("lambda", request, String::new()).await;
        if status == 404 {
            return None;
        }
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let policy: Value = serde_json::from_str(answer["Policy"].as_str().expect("a policy")).expect("JSON");
        // A function that nobody was let in to has a policy without statements here.
        let statements = policy["Statement"].clone();
        (statements != Value::Array(Vec::new())).then_some(statements)
    }

    /// The statements of a bucket's policy.
    ///
    /// # Panics
    /// When there is none.
    pub async fn bucket_policy(&self, bucket: &str) -> Value {
        let policy = self.s3().get_bucket_policy().bucket(bucket).send().await;
        let policy = policy.expect("a policy");
        let policy: Value = serde_json::from_str(policy.policy().expect("a document")).expect("JSON");
        policy["Statement"].clone()
    }

    /// Kills the instances of functions that run at this moment, as running out of memory does; gives their number.
    ///
    /// # Panics
    /// When the system does not tell which processes there are.
    pub fn kill_instances(&self) -> usize {
        let parent = format!("PPid:\t{}", self.process.id());
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let ours = processes.filter(|process| {
            let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
            status.starts_with("Name:\tbootstrap\n") && status.lines().any(|line| line == parent)
        });
        let kill = |process: std::fs::DirEntry| Command::new("kill").arg("-9").arg(process.file_name()).status();
        ours.map(kill)
            .filter(|status| status.as_ref().is_ok_and(std::process::ExitStatus::success))
            .count()
    }
}

impl Drop for MiniStack {
    fn drop(&mut self) {
        if self.process.exit_code().is_some() {
            return;
        }
        // It stops its functions when it is told to; each of them ends by itself where it was killed.
        self.process.signal("-TERM");
        let told = Instant::now();
        while self.process.exit_code().is_none() && told.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A ZIP archive of executable files.
fn package(files: &[(&str, &Path)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .unix_permissions(0o755);
    for (name, file) in files {
        archive.start_file(*name, options).expect("a member");
        archive
            .write_all(&std::fs::read(file).expect("a file"))
            .expect("written");
    }
    archive.finish().expect("an archive").into_inner()
}

fn outputs(described: &str) -> BTreeMap<String, String> {
    let members = described.split("<member>").filter_map(|member| {
        let value = element(member, "OutputValue")?.to_owned();
        Some((element(member, "OutputKey")?.to_owned(), value))
    });
    members.collect()
}

/// The text of the first element with that name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
