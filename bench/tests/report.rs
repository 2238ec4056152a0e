//! A run fills its page: every curve has its points, every core its stages. How the page looks is in `page.rs`.

use std::path::Path;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_corelog-bench")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// How many points the lines of a chart have, by its title.
fn points(page: &str, title: &str) -> Vec<usize> {
    let head = format!("<svg viewBox=\"0 0 380 250\" role=\"img\" aria-label=\"{title}\">");
    let chart: Vec<&str> = page.split(&head).skip(1).collect();
    assert_eq!(chart.len(), 1, "charts with the title {title}");
    let svg = chart[0].split("</svg>").next().unwrap();
    let curves = svg.split("<path class=\"curve").skip(1);
    curves
        .map(|curve| {
            let path = curve.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
            path.matches(['M', 'L']).count()
        })
        .collect()
}

#[test]
fn a_run_fills_every_chart_of_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    bench(&["run", "single-durable", "--scale", "0.1", "--floor-seconds", "0.1", "--out", out]);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for (title, lines) in
        [("Percentiles", 4), ("Response time over time", 3), ("Throughput over time", 2)]
    {
        let points = points(&page, title);
        assert_eq!(points.len(), lines, "{title}");
        assert!(points.iter().all(|&count| count >= 8), "{title}: {points:?} points");
    }
    assert_eq!(points(&page, "Throughput against offered load").len(), 2);
    // The stages that every message passes.
    for stage in ["write", "flush", "outside"] {
        assert!(page.contains(&format!("<title>{stage}: ")), "no bar of {stage}");
    }

    // The same page is made from the stored result.
    let again = folder.path().join("again.html");
    bench(&["page", out, "--out", again.to_str().unwrap()]);
    assert!(page == std::fs::read_to_string(Path::new(&again)).unwrap(), "another page");
}
