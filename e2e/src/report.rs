//! Medians and ratios as a Markdown table.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    packets,
    run::{Sample, grouped},
};

/// The middle value; 0 of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The median of the ratios taken repetition by repetition, which a slow stretch of the machine moves least.
fn ratio(of: &[Sample], to: Option<&Vec<Sample>>, value: fn(&Sample) -> f64) -> f64 {
    let Some(to) = to else { return f64::NAN };
    let pairs = of.iter().flat_map(|one| {
        to.iter()
            .find(|other| other.rep == one.rep)
            .map(|other| value(one) / value(other))
    });
    median(pairs)
}

/// Prints a results file.
pub(crate) fn print(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if let Ok(rows) = serde_json::from_str::<Vec<packets::Row>>(&text) {
        return packets::print(&rows);
    }
    let samples: Vec<Sample> = serde_json::from_str(&text)?;
    let groups = grouped(&samples);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n| workload | proxy | CPU s per unit | to reference | rate, units/s | to direct |"
    )?;
    writeln!(out, "|---|---|--:|--:|--:|--:|")?;
    for ((workload, proxy), of) in &groups {
        if workload == "memory" {
            continue;
        }
        let beside = |name: &str| groups.get(&(workload.clone(), name.to_owned()));
        writeln!(
            out,
            "| {workload} ({}) | {proxy} | {:.3} | {:.2} | {:.3} | {:.2} |",
            of.first().map_or("", |sample| &sample.unit),
            median(of.iter().map(|sample| sample.cost)),
            ratio(of, beside("reference"), |sample| sample.cost),
            median(of.iter().map(|sample| sample.rate)),
            ratio(of, beside("direct"), |sample| sample.rate),
        )?;
    }
    writeln!(out, "\n| memory | MiB idle | KiB a held connection |\n|---|--:|--:|")?;
    for ((workload, proxy), of) in &groups {
        if workload == "memory" && proxy != "direct" {
            let idle = median(of.iter().map(|sample| sample.cost));
            let each = median(of.iter().map(|sample| sample.rate));
            writeln!(out, "| {proxy} | {idle:.1} | {each:.1} |")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(proxy: &str, rep: u32, cost: f64) -> Sample {
        Sample {
            proxy: proxy.into(),
            workload: "http".into(),
            unit: "100k".into(),
            rep,
            cost,
            rate: 1.0,
        }
    }

    #[test]
    fn takes_the_median_of_ratios_of_the_same_repetition() {
        let ours =
            [sample("outrider", 0, 2.0), sample("outrider", 1, 40.0), sample("outrider", 2, 3.0)];
        let reference = vec![
            sample("reference", 2, 1.0),
            sample("reference", 0, 1.0),
            sample("reference", 1, 20.0),
        ];
        let found = ratio(&ours, Some(&reference), |sample| sample.cost);
        assert!((found - 2.0).abs() < 1e-9, "{found}");
    }

    #[test]
    fn groups_by_workload_and_proxy() {
        let samples = [sample("a", 0, 1.0), sample("b", 0, 1.0), sample("a", 1, 1.0)];
        assert_eq!(grouped(&samples).values().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }
}
