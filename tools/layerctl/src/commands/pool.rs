//! `layerctl pool`: how full the block devices are that layers are kept on, and one more of them.

use std::io::Write;
use std::process::ExitCode;

use layerd_api::{AddDeviceRequest, Fill, Pool};

use crate::context::Context;
use crate::names::printable;
use crate::output;
use crate::units;

/// How wide a bar is.
const BAR: u64 = 40;

/// Show how full the pool of the devicemapper driver is, or give it another device
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Give the pool another empty block device, while it is in use
    AddDevice {
        /// The device
        device: std::path::PathBuf,
        /// Lose what the device holds
        #[arg(long)]
        force: bool,
        /// The driver, where several have a pool
        #[arg(long)]
        driver: Option<String>,
    },
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let pools = match args.action {
        None => context.client.pools()?,
        Some(Action::AddDevice { device, force, driver }) => {
            let device = std::path::absolute(device)?.display().to_string();
            vec![context.client.add_device(&AddDeviceRequest { driver, device, force })?]
        }
    };
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &pools)?;
        return Ok(ExitCode::SUCCESS);
    }
    if pools.is_empty() {
        writeln!(out, "no driver with a pool is in use; devicemapper has one")?;
    }
    for pool in &pools {
        render(&mut out, pool)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn render(out: &mut impl Write, pool: &Pool) -> std::io::Result<()> {
    writeln!(out, "Pool {} ({})", printable(&pool.name), printable(&pool.mode))?;
    writeln!(out, "  Source:    {}", printable(&pool.source))?;
    if !pool.devices.is_empty() {
        writeln!(out, "  Devices:   {}", printable(&pool.devices.join(", ")))?;
    }
    writeln!(out, "  Data:      {}", bar(pool.data))?;
    writeln!(out, "  Metadata:  {}", bar(pool.metadata))?;
    let grows = match pool.threshold {
        Some(percent) => format!("{} to grow by, from {percent}% in use", units::size(pool.spare)),
        None => "does not grow by itself".to_owned(),
    };
    writeln!(out, "  Spare:     {grows}")?;
    writeln!(out, "  Full:      {}", full_in(pool))?;
    let (block, base) = (units::size(pool.block_size), units::size(pool.base_size));
    writeln!(out, "  Blocks:    {block}; a new layer's file system has {base}")?;
    if pool.deferred > 0 {
        writeln!(out, "  Deferred:  {} deleted, but still in use", pool.deferred)?;
    }
    Ok(())
}

/// `[#########...............................]  23% 1.2GB of 5.1GB`
fn bar(fill: Fill) -> String {
    let part = |whole: u64| {
        let part = u128::from(fill.used) * u128::from(whole) / u128::from(fill.total.max(1));
        usize::try_from(part.min(u128::from(whole))).unwrap_or(0)
    };
    let (full, width) = (part(BAR), usize::try_from(BAR).unwrap_or(0));
    let (bar, rest) = ("#".repeat(full), ".".repeat(width - full));
    let (used, total) = (units::size(fill.used), units::size(fill.total));
    format!("[{bar}{rest}] {:>3}% {used} of {total}", part(100))
}

/// When nothing is left at the rate of late.
fn full_in(pool: &Pool) -> String {
    let left = (pool.data.total + pool.spare).saturating_sub(pool.data.used);
    if left == 0 {
        return "now: remove layers, or add a device".to_owned();
    }
    match pool.growth_per_day.map(u64::try_from) {
        None => "not known yet".to_owned(),
        Some(Err(_) | Ok(0)) => "not at the rate of late".to_owned(),
        Some(Ok(rate)) if left / rate > 3650 => "in more than ten years".to_owned(),
        Some(Ok(rate)) => {
            let (days, unit) = if left < rate { (24, "hours") } else { (1, "days") };
            let (tenths, rate) = (left.saturating_mul(10 * days) / rate, units::size(rate));
            format!("in {}.{} {unit}, at {rate} a day", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(used: u64, growth_per_day: Option<i64>) -> Pool {
        Pool {
            driver: "devicemapper".to_owned(),
            name: "layerd-thinpool".to_owned(),
            source: "volume group layerd on /dev/sdb".to_owned(),
            devices: vec!["/dev/sdb".to_owned()],
            block_size: 65_536,
            data: Fill { used, total: 1_000_000_000 },
            metadata: Fill { used: 0, total: 0 },
            spare: 500_000_000,
            threshold: Some(80),
            mode: "rw".to_owned(),
            growth_per_day,
            base_size: 10 << 30,
            deferred: 1,
        }
    }

    #[test]
    fn bars_are_never_wider_than_they_are() {
        for (used, total, expected) in [
            (0, 100, "[........................................]   0% 0B of 100B"),
            (25, 100, "[##########..............................]  25% 25B of 100B"),
            (100, 100, "[########################################] 100% 100B of 100B"),
            (7, 0, "[########################################] 100% 7B of 0B"),
        ] {
            assert_eq!(bar(Fill { used, total }), expected);
        }
    }

    #[test]
    fn days_until_full_count_what_is_spare() {
        for (used, rate, expected) in [
            (500_000_000, Some(100_000_000), "in 10.0 days, at 100MB a day"),
            (500_000_000, Some(2_400_000_000), "in 10.0 hours, at 2.4GB a day"),
            (500_000_000, Some(1), "in more than ten years"),
            (500_000_000, Some(0), "not at the rate of late"),
            (500_000_000, Some(-5), "not at the rate of late"),
            (500_000_000, None, "not known yet"),
            (1_500_000_000, Some(1), "now: remove layers, or add a device"),
        ] {
            assert_eq!(full_in(&pool(used, rate)), expected, "{used} {rate:?}");
        }
    }

    #[test]
    fn a_pool_is_shown_whole() {
        let mut out = Vec::new();
        render(&mut out, &pool(250_000_000, None)).expect("memory");
        let text = String::from_utf8(out).expect("UTF-8");
        for part in ["Pool layerd-thinpool (rw)", "25% 250MB of 1GB", "500MB to grow by, from 80%"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
