//! The report as a reader sees it: headless Chromium opens the file without a network, at the widths of a desk and of a
//! phone. The page is made from a stored result, so that its curves are the same on every machine; that a run fills its page is in
//! `report.rs`. Needs the program `chromium` (Debian: `apt-get install chromium`).

use std::path::{Path, PathBuf};
use std::process::Command;

/// The page of the stored result.
fn report(folder: &Path) -> PathBuf {
    let page = folder.join("report.html");
    let output = Command::new(env!("CARGO_BIN_EXE_corelog-bench"))
        .args(["page", concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/stored"), "--out"])
        .arg(&page)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    page
}

fn chromium(arguments: &[String]) -> std::process::Output {
    Command::new("chromium")
        // No network: every name resolves to nothing.
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ])
        .args(arguments)
        .output()
        .expect("the program `chromium` is needed: apt-get install chromium")
}

/// Width, height, and the colours of all pixels, of a PNG of 8 bits without interlacing, as Chromium writes it.
fn pixels(path: &Path) -> (usize, usize, Vec<[u8; 3]>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let samples = info.color_type.samples();
    let colors =
        bytes[..info.buffer_size()].chunks(samples).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    (info.width as usize, info.height as usize, colors.collect())
}

fn count(pixels: &[[u8; 3]], color: u32) -> usize {
    let [_, red, green, blue] = color.to_be_bytes();
    pixels.iter().filter(|pixel| **pixel == [red, green, blue]).count()
}

#[test]
fn the_report_shows_its_curves_at_both_widths_and_needs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let page = report(folder.path());
    let text = std::fs::read_to_string(&page).unwrap();
    for outside in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!text.contains(outside), "the page has {outside}");
    }
    let url = format!("file://{}", page.display());
    for (width, height) in [(1280, 2200), (400, 4800)] {
        let shot = folder.path().join(format!("{width}.png"));
        let output = chromium(&[
            format!("--window-size={width},{height}"),
            format!("--screenshot={}", shot.display()),
            url.clone(),
        ]);
        assert!(shot.exists(), "{}", String::from_utf8_lossy(&output.stderr));
        let (wide, high, pixels) = pixels(&shot);
        assert_eq!((wide, high), (width, height));
        // The colours of the curves and of the stages, as the style sheet has them.
        for (name, color) in [("response", 0x1f_6feb), ("service", 0x2b_8a3e), ("p99", 0xb0_8900)] {
            let count = count(&pixels, color);
            assert!(count > 300, "at {width}: {count} pixels of {name}");
        }
        // Nothing runs over the right edge: its last column is background all the way down.
        let edge =
            pixels.iter().skip(width - 1).step_by(width).filter(|pixel| **pixel != [255, 255, 255]);
        assert_eq!(edge.count(), 0, "at {width} something touches the right edge");
    }
}

/// The page is no wider than the window: measured by the browser itself, in a frame of each width.
#[test]
fn nothing_is_wider_than_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let page = report(folder.path());
    let text = std::fs::read_to_string(&page).unwrap();
    let probe = "<script>document.documentElement.dataset.over = document.documentElement.scrollWidth - innerWidth;</script></body>";
    let probed = folder.path().join("probed.html");
    std::fs::write(&probed, text.replace("</body>", probe)).unwrap();
    // Chromium makes no window narrower than 500 pixels, so the phone is a frame in one.
    for width in [1280, 400] {
        let frame = folder.path().join("frame.html");
        let html = format!(
            "<body style='margin:0'><iframe id='f' src='probed.html' style='border:0;width:{width}px;height:900px'></iframe><script>\
             f.onload = () => {{ document.body.dataset.over = f.contentDocument.documentElement.dataset.over; }};</script></body>"
        );
        std::fs::write(&frame, html).unwrap();
        let output = chromium(&[
            "--window-size=1400,1000".into(),
            "--allow-file-access-from-files".into(),
            "--virtual-time-budget=3000".into(),
            "--dump-dom".into(),
            format!("file://{}", frame.display()),
        ]);
        let dom = String::from_utf8_lossy(&output.stdout);
        assert!(dom.contains("data-over=\"0\""), "at {width}: {dom}");
    }
}
