//! The annotation page in a real browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use end_to_end::program::{Running, trainer};
use end_to_end::wait_until;
use end_to_end::webdriver::Browser;

const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const RIGHT: &str = "\u{e014}";

/// A data set of small pictures, `count` in each class.
fn data(count: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (class, label) in ["dotted", "<b>&\"striped"].into_iter().enumerate() {
        std::fs::create_dir(folder.path().join(label)).expect("a class");
        for index in 0..count {
            let colour = image::Rgb([(index * 40) as u8, 90 * class as u8, 200]);
            let path = folder.path().join(label).join(format!("{index:04}.png"));
            image::RgbImage::from_pixel(60, 40, colour)
                .save(path)
                .expect("a picture");
        }
    }
    folder
}

/// A running page and its address.
struct Site {
    trainer: Running,
    url: String,
}

impl Site {
    fn start(data: &Path) -> Self {
        let data = data.display().to_string();
        let (running, first) = Running::start_and_listen(&mut trainer(&["annotate", "--data", &data]));
        assert!(first.starts_with("http://127.0.0.1:"), "{first}");
        Self {
            trainer: running,
            url: first,
        }
    }

    fn address(&self) -> &str {
        self.url
            .trim_start_matches("http://")
            .split('/')
            .next()
            .expect("an address")
    }

    fn token(&self) -> &str {
        self.url.rsplit("token=").next().expect("a token")
    }

    /// Status of a request with these headers.
    fn status(&self, method: &str, target: &str, headers: &str) -> u16 {
        let answer = self.answer(method, target, headers);
        answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }

    /// The whole answer to a request with these headers.
    fn answer(&self, method: &str, target: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).expect("a connection");
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
        )
        .expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn cards(browser: &Browser) -> u64 {
    browser
        .run("return document.querySelectorAll('.card').length")
        .as_u64()
        .expect("a count")
}

fn said(browser: &Browser) -> String {
    browser
        .run("return document.getElementById('status').textContent")
        .as_str()
        .expect("text")
        .to_owned()
}

fn click(browser: &Browser, path: &str) {
    browser.run(&format!(
        "document.querySelector('.card[data-path=\"{path}\"]').click()"
    ));
}

#[test]
fn images_are_relabelled_excluded_and_brought_back_also_after_a_restart() {
    let folder = data(6);
    let at = |path: &str| folder.path().join(path);
    let Some(browser) = Browser::start(1200, 900) else {
        return;
    };
    let site = Site::start(folder.path());
    browser.go(&site.url);
    wait_until("the images", || cards(&browser) == 12);
    let all_shown = || {
        browser.run("return [...document.images].filter((i) => i.closest('.card')).every((i) => i.naturalWidth > 0)")
            == true
    };
    wait_until("the thumbnails", all_shown);
    let classes =
        browser.run("return [...document.querySelectorAll('#targets [data-label]')].map((b) => b.dataset.label)");
    assert_eq!(classes, serde_json::json!(["<b>&\"striped", "dotted"]));

    // Class 1 by its key, then a new class by a click.
    click(&browser, "dotted/0001.png");
    browser.press("1");
    wait_until("the move", || at("<b>&\"striped/0001-2.png").exists());
    assert!(!at("dotted/0001.png").exists() && at("<b>&\"striped/0001.png").exists());
    wait_until("the message", || said(&browser).starts_with("1 moved to <b>&\"striped"));
    browser.run("document.getElementById('name').value = 'checkered'; document.querySelector('#new button').click()");
    wait_until("the class", || {
        browser.run("return document.querySelector('[data-label=checkered]') !== null") == true
    });
    click(&browser, "dotted/0002.png");
    browser.run("document.querySelector('[data-label=checkered]').click()");
    wait_until("the move", || at("checkered/0002.png").exists());
    wait_until("the page", || said(&browser).starts_with("1 moved to checkered"));

    // Several at once.
    wait_until("the cards", || {
        browser.run("return document.querySelector('[data-path=\"dotted/0003.png\"]') !== null") == true
    });
    click(&browser, "dotted/0003.png");
    browser.run("document.querySelector('[data-path=\"dotted/0005.png\"]').dispatchEvent(new MouseEvent('click', { shiftKey: true, bubbles: true }))");
    // With Caps Lock on.
    browser.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'X', bubbles: true }))");
    wait_until("the exclusion", || at(".ikat/excluded/dotted/0005.png").exists());
    wait_until("the page", || cards(&browser) == 9);

    // A label that leads out of the folder.
    browser.run("document.getElementById('name').value = '../x'; document.querySelector('#new button').click()");
    wait_until("the refusal", || {
        said(&browser).contains("cannot be the name of a class")
    });

    // Large, and back. The Tab key stops at one image, not at each of them.
    browser.run("document.querySelectorAll('.card')[1].focus(); document.querySelector('.card').focus()");
    assert_eq!(
        browser.run("return [...document.querySelectorAll('.card')].map((card) => card.tabIndex)"),
        serde_json::json!([0, -1, -1, -1, -1, -1, -1, -1, -1])
    );
    browser.press(ENTER);
    assert_eq!(browser.run("return document.getElementById('zoom').open"), true);
    browser.press(RIGHT);
    wait_until("the large picture", || {
        browser.run("return document.querySelector('#large img').naturalWidth") == 60
    });
    // All its pixels: arrow keys scroll, and turn to no other image.
    let shown = caption(&browser);
    browser.run("document.querySelector('#large img').style.width = '5000px'");
    browser.press("f");
    browser.press(RIGHT);
    wait_until("the other side", || {
        browser.run("return document.getElementById('large').scrollLeft > 0") == true
    });
    assert_eq!(caption(&browser), shown);
    browser.press("f");
    assert_eq!(
        browser.run("return document.querySelector('#large img.full')"),
        serde_json::Value::Null
    );
    browser.press(ESCAPE);

    // What was done before a kill can be undone after it. A picture on its way would be missed.
    wait_until("the thumbnails", all_shown);
    drop(site);
    let site = Site::start(folder.path());
    browser.go(&site.url);
    // Faster than the server answers.
    browser.press("zzz");
    for step in ["dotted/0005.png", "dotted/0002.png", "dotted/0001.png"] {
        wait_until("the undo", || at(step).exists());
    }
    wait_until("everything back", || cards(&browser) == 12);
    assert!(said(&browser).starts_with("undone"), "{}", said(&browser));

    // A file deleted underneath is told, and nothing else breaks.
    std::fs::remove_file(at("dotted/0004.png")).expect("deleted");
    click(&browser, "dotted/0004.png");
    browser.press("1");
    wait_until("the message", || said(&browser).contains("1 not: dotted/0004.png"));
    wait_until("the others", || cards(&browser) == 11);
    if let Some(folder) = std::env::var_os("IKAT_SCREENSHOTS") {
        std::fs::write(Path::new(&folder).join("annotate.png"), browser.screenshot()).expect("a screenshot");
    }
    let errors: Vec<_> = browser
        .console()
        .into_iter()
        .filter(|line| !line.contains("400 (Bad Request)") && !line.contains("404 (Not Found)"))
        .collect();
    assert_eq!(errors, Vec::<String>::new());
}

fn caption(browser: &Browser) -> String {
    let caption = browser.run("return document.getElementById('caption').textContent");
    caption.as_str().expect("text").to_owned()
}

#[test]
fn what_is_moved_is_what_is_shown_large() {
    let folder = data(4);
    let at = |path: &str| folder.path().join(path);
    let Some(browser) = Browser::start(700, 500) else {
        return;
    };
    let site = Site::start(folder.path());
    browser.go(&site.url);
    wait_until("the images", || cards(&browser) == 8);
    browser.run("const s = document.getElementById('label'); s.value = 'dotted'; s.dispatchEvent(new Event('input'))");
    wait_until("one class", || cards(&browser) == 4);
    browser.run("document.querySelector('.card').focus()");
    browser.press(ENTER);
    assert_eq!(caption(&browser), "dotted: dotted/0000.png");
    // A second press before the answer means the same picture; the next one is shown after it.
    browser.run(
        "for (const key of '11') document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }))",
    );
    wait_until("the next one", || caption(&browser) == "dotted: dotted/0001.png");
    wait_until("the message", || {
        browser.run("return document.getElementById('said').textContent") == "1 moved to <b>&\"striped"
    });
    browser.press("1");
    wait_until("the one after it", || caption(&browser) == "dotted: dotted/0002.png");
    assert!(!at("dotted/0001.png").exists() && at("dotted/0002.png").exists());
    browser.press("z");
    wait_until("the undo", || cards(&browser) == 3);
    assert_eq!(caption(&browser), "dotted: dotted/0002.png");
    browser.press(ESCAPE);

    // A click on a class, by keyboard too, leaves the focus there; what gets it is not under the header.
    click(&browser, "dotted/0002.png");
    browser.run("const b = document.querySelector('#targets button'); b.focus(); b.click()");
    wait_until("the move", || cards(&browser) == 2);
    assert_eq!(
        browser.run("return [...document.querySelectorAll('.card')].map((card) => card.tabIndex)"),
        serde_json::json!([-1, 0]),
        "the Tab key stops where it did"
    );
    assert_eq!(
        browser.run("return document.activeElement === document.querySelector('#targets button')"),
        true
    );
    browser.run("const s = document.getElementById('label'); s.value = ''; s.dispatchEvent(new Event('input'))");
    wait_until("all classes", || cards(&browser) == 8);
    browser.run("window.scrollTo(0, document.body.scrollHeight); document.querySelector('.card').focus()");
    assert_eq!(
        browser.run(
            "return document.querySelector('.card').getBoundingClientRect().top >= document.querySelector('header').getBoundingClientRect().bottom"
        ),
        true
    );
    assert_eq!(browser.console(), Vec::<String>::new());

    // Without the trainer, what could not be moved is selected again.
    click(&browser, "dotted/0001.png");
    drop(site);
    browser.press("1");
    wait_until("the message", || said(&browser).contains("does not answer"));
    wait_until("the selection", || {
        browser.run("return document.querySelectorAll('[aria-selected=true]').length") == 1
    });
}

#[test]
fn five_thousand_images_are_shown_a_page_at_a_time() {
    let folder = data(2500);
    let Some(browser) = Browser::start(1200, 900) else {
        return;
    };
    let site = Site::start(folder.path());
    browser.go(&site.url);
    wait_until("the first page", || cards(&browser) == 60);
    browser.press("a");
    assert_eq!(said(&browser), "60 selected");
    browser.press("n");
    wait_until("the second page", || {
        browser.run("return document.getElementById('place').textContent") == "61 to 120 of 5000"
    });
    assert_eq!(said(&browser), "", "nothing of the second page is selected");
    browser.press("a");
    browser.run("const s = document.getElementById('label'); s.value = 'dotted'; s.dispatchEvent(new Event('input'))");
    wait_until("one class", || {
        browser.run("return document.getElementById('place').textContent") == "1 to 60 of 2500"
    });
    assert_eq!(said(&browser), "");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_is_selected_is_seen_also_with_the_colours_of_the_system() {
    let folder = data(1);
    let Some(browser) = Browser::start(700, 500) else {
        return;
    };
    let site = Site::start(folder.path());
    browser.go(&site.url);
    wait_until("the images", || cards(&browser) == 2);
    click(&browser, "dotted/0000.png");
    for forced in ["none", "active"] {
        browser.prefer("forced-colors", forced);
        let borders =
            browser.run("return [...document.querySelectorAll('.card')].map((c) => getComputedStyle(c).borderColor)");
        assert_ne!(borders[0], borders[1], "forced colours: {forced}");
    }
}

#[test]
fn nobody_without_the_token_and_no_other_page_gets_in() {
    let folder = data(1);
    let site = Site::start(folder.path());
    let (host, token) = (site.address().to_owned(), site.token().to_owned());
    let own = format!("host: {host}\r\n");
    let with_token = format!("{own}x-ikat-token: {token}\r\n");
    assert_eq!(site.status("GET", &format!("/?token={token}"), &own), 200);
    assert_eq!(site.status("GET", "/api/images", &with_token), 200);
    for (target, headers) in [
        ("/", own.clone()),
        ("/api/images", own.clone()),
        ("/api/images?token=0123", own.clone()),
        ("/annotate.js", own),
        (
            "/api/images",
            format!("host: rebound.example\r\nx-ikat-token: {token}\r\n"),
        ),
        ("/api/images", format!("{with_token}origin: http://evil.example\r\n")),
    ] {
        assert_eq!(site.status("GET", target, &headers), 403, "{target} {headers}");
        assert_eq!(site.status("POST", "/api/undo", &headers), 403, "{headers}");
    }
    // Pictures that are there, and none of the data set's.
    let outside = tempfile::tempdir().expect("a folder beside it");
    let excluded = folder.path().join(".ikat/excluded/dotted");
    std::fs::create_dir_all(&excluded).expect("a folder");
    for place in [outside.path(), &excluded] {
        std::fs::copy(folder.path().join("dotted/0000.png"), place.join("0000.png")).expect("a copy");
    }
    let beside = outside.path().file_name().expect("a name").to_string_lossy();
    for path in [
        format!("../{beside}/0000.png"),
        format!("%2e%2e%2f{beside}%2f0000.png"),
        outside.path().join("0000.png").display().to_string(),
        ".ikat/excluded/dotted/0000.png".to_owned(),
        "dotted/../dotted/0000.png".to_owned(),
    ] {
        assert_eq!(
            site.status("GET", &format!("/thumbnail?path={path}"), &with_token),
            404,
            "{path}"
        );
    }
    assert_eq!(site.status("GET", "/thumbnail?path=dotted/0000.png", &with_token), 200);
}

#[test]
fn every_refusal_has_the_form_that_the_page_reads() {
    let folder = data(1);
    let site = Site::start(folder.path());
    let headers = format!("host: {}\r\nx-ikat-token: {}\r\n", site.address(), site.token());
    let json = format!("{headers}content-type: application/json\r\n");
    for (method, target, headers, status) in [
        ("GET", "/api/nothing", &headers, "404"),
        ("POST", "/api/undo", &headers, "415"),
        ("POST", "/api/undo", &json, "400"),
        ("GET", "/api/undo", &headers, "405"),
        ("GET", "/thumbnail", &headers, "400"),
    ] {
        let answer = site.answer(method, target, headers);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).expect(&answer);
        assert!(body["error"].as_str().is_some_and(|said| !said.is_empty()), "{answer}");
    }
}

#[test]
fn an_audit_of_another_folder_is_told() {
    let folder = data(1);
    let data = folder.path().display().to_string();
    let audit = folder.path().join(".audit.json");
    let name = audit.display().to_string();
    let doubt =
        |path: &str| serde_json::json!([{ "path": path, "label": "dotted", "suggested": "striped", "suspicion": 0.5 }]);
    for (labels, is_told) in [
        (doubt("dotted/0000.png"), false),
        (doubt("photos/dotted/0000.png"), true),
        // As where each class has one image: another audit would say no more.
        (serde_json::json!([]), false),
    ] {
        std::fs::write(&audit, serde_json::json!({ "labels": labels }).to_string()).expect("an audit");
        let mut command = trainer(&["annotate", "--data", &data, "--audit", &name]);
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (mut address, mut told) = (String::new(), String::new());
        BufReader::new(running.take_stdout())
            .read_line(&mut address)
            .expect("a line");
        let mut stderr = running.take_stderr();
        drop(running);
        stderr.read_to_string(&mut told).expect("text");
        assert_eq!(told.contains("tells of no image here"), is_told, "{told}");
    }
}

#[test]
fn a_request_that_never_ends_holds_it_up_once() {
    let folder = data(1);
    let site = Site::start(folder.path());
    let mut stream = TcpStream::connect(site.address()).expect("a connection");
    write!(stream, "GET / HTTP/1.1\r\n").expect("sent");
    // It was read once another request is answered.
    site.status("GET", "/", "");
    site.trainer.signal("-INT");
    wait_until("the end of the listening", || {
        TcpStream::connect(site.address()).is_err()
    });
    site.trainer.signal("-INT");
    let mut running = site.trainer;
    wait_until("the end", || running.exit_code() == Some(0));
}

#[test]
fn who_left_something_out_ends_with_another_code() {
    let folder = data(1);
    std::fs::write(folder.path().join("loose.png"), "no label").expect("a file");
    let site = Site::start(folder.path());
    // Who answers listens for Ctrl-C too.
    site.status("GET", "/", "");
    site.trainer.signal("-INT");
    let mut running = site.trainer;
    wait_until("the end", || running.exit_code() == Some(3));
}

#[test]
fn the_audits_page_leads_to_the_image_on_the_annotation_page() {
    let folder = data(6);
    let Some(browser) = Browser::start(1200, 900) else {
        return;
    };
    let site = Site::start(folder.path());
    let page = folder.path().join("audit.html");
    let (data, html) = (folder.path().display().to_string(), page.display().to_string());
    let mut audit = trainer(&[
        "data",
        "audit",
        "--data",
        &data,
        "--html",
        &html,
        "--annotate",
        &site.url,
    ]);
    end_to_end::program::say(&mut audit).ended_with(0);
    browser.open(&page);
    let links = browser.run("return [...document.querySelectorAll('a.card')].map((a) => a.href)");
    let links = links.as_array().expect("links");
    assert!(!links.is_empty(), "plain colours are like no other or doubtful");
    assert_eq!(
        browser.run("return [...document.images].every((i) => i.naturalWidth > 0)"),
        true
    );
    assert_eq!(browser.console(), Vec::<String>::new());
    browser.go(links[0].as_str().expect("an address"));
    wait_until("the one image", || cards(&browser) == 1);
    let path = browser.run("return document.querySelector('.card').dataset.path");
    assert!(folder.path().join(path.as_str().expect("a path")).exists());
    // It stays in sight where it is moved, and the others are one click away.
    browser.run("document.querySelector('.card').click()");
    // With Caps Lock on.
    browser.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'X', bubbles: true }))");
    wait_until("the exclusion", || said(&browser) == "1 excluded");
    assert_eq!(cards(&browser), 1);
    browser.press("z");
    wait_until("the undo", || said(&browser).starts_with("undone"));
    assert_eq!(cards(&browser), 1);
    browser.run("document.getElementById('all').click()");
    wait_until("all of them", || cards(&browser) == 12);
}
