//! The pages, looked at by a real browser.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use end_to_end::program::{Said, say, trainer};
use end_to_end::webdriver::Browser;
use end_to_end::{encoded, lasting_folder};
use serde_json::{Value, json};
use shared::explain::ActivationMap;
use trainer::demo::{self, DemoClass};
use trainer::evaluation::{Evaluation, Metrics, Predicted, Predictions};
use trainer::report::{Gallery, Report, Shown};
use trainer::runs::{DataSummary, Kind, Record};

const RIGHT: &str = "\u{e014}";
const LEFT: &str = "\u{e012}";
const ESCAPE: &str = "\u{e00c}";

/// A run on drawn images whose labels and file names hold whatever a file system allows.
struct Nasty {
    folder: PathBuf,
    said: Said,
}

const LABELS: [(&str, DemoClass); 3] = [
    ("<img src=x onerror=alert(1)>", DemoClass::Dotted),
    ("\"quoted\" & 'single'", DemoClass::Striped),
    ("😀 emoji", DemoClass::Leopard),
];

fn nasty() -> &'static Nasty {
    static NASTY: OnceLock<Nasty> = OnceLock::new();
    NASTY.get_or_init(|| {
        let folder = lasting_folder(&std::env::temp_dir());
        for (label, class) in LABELS {
            for index in 0..16 {
                let name = format!("{index}\n<b>&\"😀.jpg");
                let path = folder.join("data").join(label).join(name);
                demo::write(&path, class, index, 5).expect("an image");
            }
        }
        let mut command = trainer(&[
            "train", "--json", "--data", "data", "--out", "run", "--name", "<i>nasty",
        ]);
        let said = say(command.current_dir(&folder)).ended_with(0);
        Nasty { folder, said }
    })
}

impl Nasty {
    fn page(&self) -> PathBuf {
        self.folder.join("run/report.html")
    }

    fn metrics(&self) -> Value {
        self.said.json()["metrics"].clone()
    }
}

fn count(browser: &Browser) -> String {
    text(browser, "#count")
}

/// Waits until the page says how many images it shows.
fn shows(browser: &Browser, expected: &str) {
    end_to_end::wait_until(expected, || count(browser) == expected);
}

fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector('{selector}').textContent");
    browser.run(&script).as_str().expect("text").to_owned()
}

fn choose(browser: &Browser, id: &str, value: &str) {
    browser.run(&format!(
        "const control = document.getElementById('{id}'); control.value = '{value}'; control.dispatchEvent(new Event('input'))"
    ));
}

#[test]
fn filters_links_and_keys_work_and_everything_from_outside_is_text() {
    let Some(browser) = Browser::start(1280, 900) else {
        return;
    };
    let nasty = nasty();
    browser.open(&nasty.page());
    let metrics = nasty.metrics();
    let total = metrics["test_count"].as_u64().expect("a count");
    shows(&browser, &format!("{total} of {total} images"));

    let labels = metrics["classes"].as_array().expect("classes").clone();
    let options =
        browser.run("return [...document.querySelectorAll('#truth option')].slice(1).map((o) => o.textContent)");
    assert_eq!(options, json!(labels));
    assert_eq!(
        browser.run("return document.querySelectorAll('img[src=x], b b, h1 i').length"),
        0
    );
    assert!(text(&browser, "h1").starts_with("i-nasty:"));

    let right: u64 = (0..3)
        .filter_map(|class| metrics["confusion"][class][class].as_u64())
        .sum();
    choose(&browser, "outcome", "right");
    shows(&browser, &format!("{right} of {total} images"));
    choose(&browser, "least", "101");
    shows(&browser, &format!("0 of {total} images"));
    browser.run("document.getElementById('reset').click()");
    shows(&browser, &format!("{total} of {total} images"));

    // A cell of the confusion matrix leads to its images.
    let cell = metrics["confusion"][2][2].as_u64().expect("a count");
    browser.run("document.querySelector('a[href=\"#images?truth=2&predicted=2\"]').click()");
    shows(&browser, &format!("{cell} of {total} images"));
    browser.run("document.getElementById('reset').click()");
    shows(&browser, &format!("{total} of {total} images"));
    // Once more, though the address stays the same; an empty bound is none.
    browser.run("document.querySelector('a[href=\"#images?truth=2&predicted=2\"]').click()");
    shows(&browser, &format!("{cell} of {total} images"));
    browser.run("document.getElementById('reset').click()");
    choose(&browser, "most", "");
    shows(&browser, &format!("{total} of {total} images"));
    assert_eq!(
        browser.run("return [...document.querySelectorAll('.said')].every((said) => said.lastChild.offsetHeight < 30)"),
        true,
        "a long name breaks no percentage"
    );

    choose(&browser, "sort", "path");
    browser.run("document.querySelector('.card').click()");
    assert!(text(&browser, "#position").starts_with(&format!("1 of {total}")));
    let height = browser.run("return document.querySelector('#large img').getBoundingClientRect().height");
    assert!(height.as_f64() > Some(200.0), "{height}");
    let path = text(&browser, "#path");
    assert!(path.contains("\n<b>&\"😀.jpg"), "{path:?}");
    browser.press(RIGHT);
    assert!(text(&browser, "#position").starts_with(&format!("2 of {total}")));
    browser.press(LEFT);
    browser.press(LEFT);
    assert!(text(&browser, "#position").starts_with(&format!("{total} of {total}")));
    browser.press("h");
    assert_eq!(
        browser.run("return document.querySelectorAll('#large canvas').length"),
        1
    );
    browser.press(ESCAPE);
    assert_eq!(browser.run("return document.getElementById('viewer').open"), false);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn pages_are_readable_on_a_phone_and_in_the_dark() {
    let page = nasty().page();
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")] {
        let Some(browser) = Browser::start(width, 900) else {
            return;
        };
        browser.prefer("prefers-color-scheme", scheme);
        browser.open(&page);
        assert!(
            browser.run("return document.documentElement.scrollWidth").as_u64() <= Some(width.into()),
            "nothing sticks out at {width}"
        );
        let contrasts = browser.run(CONTRAST);
        for (what, contrast) in contrasts.as_object().expect("contrasts") {
            assert!(contrast.as_f64() >= Some(4.5), "{what} at {width} {scheme}: {contrast}");
        }
        let dark = browser.run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)";
        assert_eq!(dark, scheme == "dark");
        keep(&browser, &format!("report-{width}-{scheme}"));
        assert_eq!(browser.console(), Vec::<String>::new());
    }
}

/// Contrast ratios as WCAG 2.1 defines them, of some texts against the page.
const CONTRAST: &str = "
    const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const linear = (part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    const luminance = (colour) => parts(colour).map(linear).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const page = luminance(getComputedStyle(document.body).backgroundColor);
    const contrast = (selector, property) => {
      const own = luminance(getComputedStyle(document.querySelector(selector))[property]);
      return (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05);
    };
    return { body: contrast('body', 'color'), faint: contrast('.faint', 'color'), link: contrast('nav a', 'color'),
      chart: contrast('.chart svg text', 'fill') };";

/// Keeps a screenshot for whoever wants to look, where `IKAT_SCREENSHOTS` names a folder.
fn keep(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("IKAT_SCREENSHOTS") {
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, browser.screenshot()).expect("a screenshot");
    }
}

#[test]
fn three_thousand_images_are_drawn_a_screenful_at_a_time() {
    let Some(browser) = Browser::start(1280, 900) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    let html = large_report(3000, 10);
    assert!(html.len() < 10_000_000, "{} bytes", html.len());
    std::fs::write(&page, html).expect("a page");
    browser.open(&page);
    shows(&browser, "3000 of 3000 images");
    let cards = "return document.querySelectorAll('.card').length";
    let drawn = browser.run(cards).as_u64().expect("a count");
    assert!((1..=300).contains(&drawn), "{drawn} cards");
    let confidences = browser
        .run("return [...document.querySelectorAll('.said')].map((said) => parseFloat(said.lastChild.textContent))");
    let confidences: Vec<f64> = confidences
        .as_array()
        .expect("shares")
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert!(
        confidences.len() > 1 && confidences.is_sorted(),
        "the least certain first: {confidences:?}"
    );
    browser.run("document.getElementById('more').scrollIntoView()");
    end_to_end::wait_until("more cards", || browser.run(cards).as_u64() > Some(drawn));
    browser.run("document.querySelectorAll('.card')[59].click()");
    browser.press(LEFT);
    assert!(text(&browser, "#position").starts_with("59 of 3000"));
    browser.press(ESCAPE);
    choose(&browser, "outcome", "wrong");
    shows(&browser, "600 of 3000 images");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn the_headings_of_a_table_stand_over_its_columns() {
    let Some(browser) = Browser::start(1280, 900) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    // So many classes have a table of texts instead of a matrix.
    std::fs::write(&page, large_report(100, 50)).expect("a page");
    browser.open(&page);
    let cells = "table.text thead th, table.text thead + tbody tr:first-child td";
    let aligned = browser.run(&format!(
        "return [...document.querySelectorAll('{cells}')].map((cell) => getComputedStyle(cell).textAlign)"
    ));
    let left = ["left"; 6];
    assert_eq!(aligned, json!(left), "three columns, their headings first");
}

/// The page of a run with `images` test images, every fifth of them wrong.
fn large_report(images: usize, classes: usize) -> String {
    let labels: Vec<String> = (0..classes).map(|class| format!("class {class}")).collect();
    let row = |image: usize| {
        let truth = image % classes;
        let best = (truth + usize::from(image.is_multiple_of(5))) % classes;
        // Ever surer. What is left goes to all other classes, or now and then to one, which alone is then close.
        let confidence = 0.5 + 0.4 * image as f32 / images as f32;
        let others = if image.is_multiple_of(100) { 1 } else { classes - 1 };
        let mut probabilities = vec![0.0; classes];
        for other in 1..=others {
            probabilities[(best + other) % classes] = (1.0 - confidence) / others as f32;
        }
        probabilities[best] = confidence;
        Predicted {
            path: format!("class {truth}/{image}.jpg").into(),
            truth,
            best,
            probabilities,
            decision: None,
        }
    };
    let predictions = Predictions {
        classes: labels,
        rows: (0..images).map(row).collect(),
    };
    let metrics = Metrics::from(Evaluation::new(&predictions));
    let noise = |x: u32, y: u32| image::Rgb([(x * 7 + y * 3) as u8, (x * y) as u8, (x ^ y) as u8]);
    let thumbnail = encoded(image::RgbImage::from_fn(64, 64, noise), image::ImageFormat::Jpeg);
    let shown = |row: usize| Shown {
        row,
        thumbnail: thumbnail[..thumbnail.len().min(2000)].to_vec(),
        width: 640,
        height: 480,
        map: Some(ActivationMap {
            width: 7,
            height: 7,
            values: (0..49).map(|cell| (cell % 9) as f32).collect(),
        }),
    };
    let gallery = Gallery {
        images: (0..images).map(shown).collect(),
    };
    let bundle = end_to_end::bundles::bundle(1, 16);
    let data = DataSummary {
        root: "/images".to_owned(),
        fingerprint: "00".repeat(32),
        images,
        left_out: 0,
        classes: Vec::new(),
    };
    let report = Report {
        record: &Record::new(Kind::Evaluate, &bundle.manifest, data, &[]),
        metrics: &metrics,
        predictions: &predictions,
        history: &[],
        parameters: &json!({}),
        skipped: &[],
        gallery: &gallery,
    };
    let files = report.files().expect("drawn");
    String::from_utf8(files["report.html"].to_vec()).expect("text")
}
