//! Image search against servers that answer as each provider documents.

use std::io::Write;
use std::process::Command;

use end_to_end::encoded;
use end_to_end::program::{Said, say, trainer};
use end_to_end::web::{Web, answer};
use serde_json::{Value, json};

fn jpeg(number: u32) -> Vec<u8> {
    let pixels = image::RgbImage::from_fn(40, 30, |x, y| {
        image::Rgb([(x * number) as u8, (y * 7) as u8, number as u8])
    });
    encoded(pixels, image::ImageFormat::Jpeg)
}

fn parameter(path: &str, name: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://localhost{path}")).ok()?;
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// Answers searches by `respond` and gives a picture for every other path. `HOST` in an answer becomes the server's own
/// address.
fn provider(
    headers: &'static [(&'static str, &'static str)],
    respond: impl Fn(&str) -> Value + Send + Sync + 'static,
) -> Web {
    Web::start(move |path, before, stream| {
        let own = format!("http://{}", stream.local_addr().expect("an address"));
        if path.starts_with("/api") {
            if parameter(path, "q").is_some_and(|query| query.starts_with("busy")) && before == 0 {
                return answer(stream, "429 Too Many Requests", &[("retry-after", "1")], b"{}");
            }
            let text = respond(path).to_string().replace("HOST", &own);
            answer(stream, "200 OK", headers, text.as_bytes());
        } else {
            let digits: String = path.chars().filter(char::is_ascii_digit).collect();
            answer(stream, "200 OK", &[], &jpeg(digits.parse().unwrap_or(1)));
        }
    })
}

fn search(folder: &tempfile::TempDir, web: &Web, name: &str, more: &[&str]) -> Command {
    let data = folder.path().join("data").display().to_string();
    let endpoint = web.url("/api");
    let fixed = [
        "data",
        "search",
        "--json",
        "--allow-private",
        "--data",
        &data,
        "--provider",
        name,
        "--provider-endpoint",
        &endpoint,
    ];
    let mut command = trainer(&[&fixed[..], more].concat());
    for variable in [
        "OPENVERSE_TOKEN",
        "WIKIMEDIA_TOKEN",
        "BRAVE_API_KEY",
        "SERPAPI_API_KEY",
        "PEXELS_API_KEY",
    ] {
        command.env_remove(variable);
    }
    command
}

fn ledger(folder: &tempfile::TempDir) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path().join("data/.ikat/provenance.jsonl")).expect("a ledger");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line"))
        .collect()
}

fn openverse(path: &str) -> Value {
    let page: u64 = parameter(path, "page").and_then(|page| page.parse().ok()).unwrap_or(1);
    let attribute = parameter(path, "q")
        .unwrap_or_default()
        .bytes()
        .map(u64::from)
        .sum::<u64>();
    let result = |index: u64| {
        json!({
            "id": "x", "title": "A dress", "url": format!("HOST/{}.jpg", attribute * 1000 + page * 20 + index),
            "foreign_landing_url": "https://example.org/page", "creator": "Ada", "license": "by", "license_version": "2.0",
            "attribution": "\"A dress\" by Ada is licensed under CC BY 2.0.",
        })
    };
    json!({ "result_count": 50, "page_count": 3, "page_size": 20, "page": page, "results": (0..20).map(result).collect::<Vec<_>>() })
}

#[test]
fn openverse_is_asked_page_by_page_and_never_twice() {
    let web = provider(&[("x-ratelimit-available-anon_sustained", "123")], openverse);
    let folder = tempfile::tempdir().expect("a folder");
    let options = [
        "--items",
        "dress",
        "--attributes",
        "striped,busy",
        "--per-query",
        "25",
        "--licence",
        "by,cc0",
    ];
    let said = say(&mut search(&folder, &web, "openverse", &options)).ended_with(0);
    assert_eq!(said.json()["kept"], 50, "{said:?}");
    assert!(said.stderr.contains("123 left"), "{said:?}");
    assert!(folder.path().join("data/striped").is_dir() && folder.path().join("data/busy").is_dir());
    let line = &ledger(&folder)[0];
    assert_eq!(
        (&line["licence"], &line["creator"], &line["page"]),
        (&json!("by 2.0"), &json!("Ada"), &json!("https://example.org/page"))
    );
    // Two pages for each query, and the busy one once more.
    let asked = |page: &str, query: &str| {
        web.asked(&format!(
            "/api?q={query}+dress&page_size=20&page={page}&license=by%2Ccc0"
        ))
    };
    assert_eq!(
        (asked("1", "striped"), asked("2", "striped"), asked("3", "striped")),
        (1, 1, 0)
    );
    assert_eq!((asked("1", "busy"), asked("2", "busy")), (2, 2));

    let requests = web.total();
    let again = say(&mut search(&folder, &web, "openverse", &options))
        .ended_with(0)
        .json();
    assert_eq!((&again["kept"], &again["known"]), (&json!(0), &json!(50)));
    assert_eq!(
        web.total(),
        requests,
        "neither the provider nor an image is asked again"
    );
}

#[test]
fn a_query_that_was_interrupted_goes_on_at_its_next_page() {
    // Each call may ask once.
    let web = provider(&[("x-ratelimit-available-anon_sustained", "0")], openverse);
    let folder = tempfile::tempdir().expect("a folder");
    let options = ["--items", "dress", "--per-query", "25"];
    let said = say(&mut search(&folder, &web, "openverse", &options)).ended_with(3);
    assert!(said.stderr.contains("quota is used up"), "{said:?}");
    assert_eq!(said.json()["kept"], 20, "{said:?}");
    let said = say(&mut search(&folder, &web, "openverse", &options)).ended_with(0);
    let document = said.json();
    assert_eq!(
        (&document["kept"], &document["known"]),
        (&json!(5), &json!(20)),
        "{said:?}"
    );
    for page in ["1", "2"] {
        let asked = web.asked(&format!("/api?q=dress&page_size=20&page={page}"));
        assert_eq!(asked, 1, "page {page}");
    }
    let kept = std::fs::read_dir(folder.path().join("data/.ikat/searches")).expect("a folder");
    assert_eq!(kept.count(), 1, "the pages are no longer needed");
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let web = Web::start(|path, before, stream| {
        if !path.starts_with("/api") {
            return answer(stream, "200 OK", &[], &jpeg(1));
        }
        if before == 0 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{");
            return;
        }
        let own = format!("http://{}/1.jpg", stream.local_addr().expect("an address"));
        let found = json!({ "page_count": 1, "page": 1, "results": [{ "url": own }] });
        answer(stream, "200 OK", &[], found.to_string().as_bytes());
    });
    let folder = tempfile::tempdir().expect("a folder");
    let said = say(&mut search(&folder, &web, "openverse", &["--items", "dress"])).ended_with(0);
    assert_eq!(said.json()["kept"], 1, "{said:?}");
}

#[test]
fn a_wiki_that_is_busy_is_asked_again_when_it_wishes() {
    let web = Web::start(|path, before, stream| {
        if !path.starts_with("/api") {
            return answer(stream, "200 OK", &[], &jpeg(1));
        }
        if before == 0 {
            let busy = json!({ "error": { "code": "maxlag", "info": "Waiting for 10.0.0.1: 6.2 seconds lagged." } });
            return answer(stream, "200 OK", &[("retry-after", "1")], busy.to_string().as_bytes());
        }
        let own = format!("http://{}/1.jpg", stream.local_addr().expect("an address"));
        let found = json!({ "query": { "pages": [{ "index": 1, "imageinfo": [{ "url": own }] }] } });
        answer(stream, "200 OK", &[], found.to_string().as_bytes());
    });
    let folder = tempfile::tempdir().expect("a folder");
    let said = say(&mut search(&folder, &web, "wikimedia-commons", &["--items", "dress"])).ended_with(0);
    assert_eq!(said.json()["kept"], 1, "{said:?}");
}

#[test]
fn who_wants_to_be_left_alone_until_a_date_is_not_asked_again() {
    let date = ("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT");
    let web = Web::start(move |_, _, stream| answer(stream, "503 Service Unavailable", &[date], b"{}"));
    let folder = tempfile::tempdir().expect("a folder");
    let said = say(&mut search(&folder, &web, "openverse", &["--items", "dress"])).ended_with(1);
    let reason = said.json()["unanswered"][0]["reason"].to_string();
    assert!(reason.contains("ask again in ") && web.total() == 1, "{reason}");
}

#[test]
fn every_provider_is_read_as_it_documents() {
    let commons = |_: &str| {
        let page = |index: u64| {
            json!({ "index": index, "title": "File:X.jpg", "imageinfo": [{
                "url": "HOST/original.tif", "thumburl": format!("HOST/{index}.jpg"), "descriptionurl": "https://commons.example/File:X.jpg",
                "extmetadata": { "LicenseShortName": { "value": "CC BY-SA 4.0" }, "Artist": { "value": "<a href=\"//x\">Ada &amp; Bob</a>" } },
            }]})
        };
        json!({ "batchcomplete": true, "query": { "pages": [page(2), page(1)] } })
    };
    let brave = |_: &str| {
        json!({ "type": "images", "results": [
            { "title": "x", "url": "https://shop.example/1", "properties": { "url": "HOST/1.jpg" } },
            { "title": "y", "url": "https://shop.example/2", "properties": {} },
            { "title": "z", "url": "https://shop.example/3", "properties": { "url": "HOST/2.jpg" } },
        ]})
    };
    let serpapi = |path: &str| match parameter(path, "ijn").as_deref() {
        Some("0") => json!({ "images_results": [
            { "original": "HOST/1.jpg", "link": "https://shop.example/1", "source": "Shop" },
            { "original": "HOST/2.jpg", "link": "https://shop.example/2", "source": "Shop" },
        ]}),
        _ => json!({ "error": "Google hasn't returned any results for this query." }),
    };
    let pexels = |_: &str| {
        json!({ "total_results": 2, "page": 1, "per_page": 80, "photos": [
            { "id": 1, "url": "https://pexels.example/1", "photographer": "Ada", "src": { "original": "HOST/9.jpg", "large2x": "HOST/1.jpg" } },
            { "id": 2, "url": "https://pexels.example/2", "photographer": "Bob", "src": { "original": "HOST/2.jpg" } },
        ]})
    };
    let cases: [(&str, &str, Web, Value); 4] = [
        ("wikimedia-commons", "", provider(&[], commons), json!("Ada & Bob")),
        (
            "brave",
            "BRAVE_API_KEY",
            provider(&[("x-ratelimit-remaining", "1, 77")], brave),
            Value::Null,
        ),
        ("serpapi", "SERPAPI_API_KEY", provider(&[], serpapi), json!("Shop")),
        (
            "pexels",
            "PEXELS_API_KEY",
            provider(&[("x-ratelimit-remaining", "77")], pexels),
            json!("Ada"),
        ),
    ];
    for (name, variable, web, creator) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = search(&folder, &web, name, &["--items", "dress", "--jobs", "1"]);
        if !variable.is_empty() {
            let refused = say(&mut command).ended_with(1);
            assert!(refused.stderr.contains(variable) && web.total() == 0, "{refused:?}");
            command.env(variable, "secret-key");
        }
        let said = say(&mut command).ended_with(0);
        assert_eq!(said.json()["kept"], 2, "{name}: {said:?}");
        assert!(!format!("{said:?}").contains("secret-key"), "{name}");
        if ["brave", "pexels"].contains(&name) {
            assert!(said.stderr.contains("77 left"), "{name}: {said:?}");
        }
        let lines = ledger(&folder);
        let first = lines
            .iter()
            .find(|line| line["url"].as_str().is_some_and(|url| url.ends_with("/1.jpg")))
            .expect("the first");
        assert_eq!(first["creator"], creator, "{name}");
        assert_eq!(first["label"], "dress");
    }
}

#[test]
fn a_dry_run_asks_nobody_and_errors_are_told() {
    let web = provider(&[], |_| json!({ "detail": "the index is being rebuilt" }));
    let folder = tempfile::tempdir().expect("a folder");
    let items = "t-shirt,blouse,sweater,hoodie,cardigan,dress,skirt";
    let all = ["--items", items, "--attributes", "striped,dotted,leopard", "--dry-run"];
    let plan = say(&mut search(&folder, &web, "openverse", &all)).ended_with(0).json();
    assert_eq!(plan["queries"].as_array().map(Vec::len), Some(21));
    assert_eq!(
        (&plan["images_at_most"], &plan["requests_at_most"]),
        (&json!(1050), &json!(63))
    );
    assert_eq!(web.total(), 0);
    assert!(!folder.path().join("data").exists());

    let said: Said = say(&mut search(&folder, &web, "openverse", &["--items", "dress"])).ended_with(1);
    assert!(said.stderr.contains("why some have no answer"), "{said:?}");
    let unanswered = json!([{ "text": "dress", "label": "dress", "reason": "the index is being rebuilt" }]);
    assert_eq!(said.json()["unanswered"], unanswered);
    let wrong = say(&mut search(
        &folder,
        &web,
        "openverse",
        &["--items", "dress", "--attributes", "../x"],
    ))
    .ended_with(2);
    assert!(
        wrong.stderr.contains("cannot be the name of a class folder"),
        "{wrong:?}"
    );
}

#[test]
fn a_search_that_finds_nothing_says_so_and_makes_nothing() {
    let web = provider(
        &[],
        |_| json!({ "result_count": 0, "page_count": 0, "page_size": 20, "page": 1, "results": [] }),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let said = say(&mut search(&folder, &web, "openverse", &["--items", "dress"])).ended_with(1);
    assert!(
        said.stderr.contains("no query found an image: try other words"),
        "{said:?}"
    );
    let document = said.json();
    assert_eq!((&document["kept"], &document["unanswered"]), (&json!(0), &json!([])));
    assert!(!folder.path().join("data").exists());
}

#[test]
fn what_a_provider_says_of_a_request_that_it_refuses_is_told() {
    let web = Web::start(|_, _, stream| {
        let said = json!({ "error": { "code": "SUBSCRIPTION_TOKEN_INVALID", "detail": "the token is invalid" } });
        answer(stream, "422 Unprocessable Entity", &[], said.to_string().as_bytes());
    });
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = search(&folder, &web, "brave", &["--items", "dress"]);
    let said = say(command.env("BRAVE_API_KEY", "secret-key")).ended_with(1);
    assert_eq!(
        said.json()["unanswered"][0]["reason"],
        "the provider answered 422 Unprocessable Entity: the token is invalid"
    );
}

#[test]
fn licences_are_asked_for_where_the_provider_knows_them_or_not_at_all() {
    let web = provider(&[], |_| json!({ "photos": [] }));
    let folder = tempfile::tempdir().expect("a folder");
    let options = ["--items", "dress", "--licence", "cc0"];
    let said = say(search(&folder, &web, "pexels", &options).env("PEXELS_API_KEY", "secret-key")).ended_with(2);
    assert!(said.stderr.contains("--licence") && web.total() == 0, "{said:?}");
}
