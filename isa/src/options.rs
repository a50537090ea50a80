//! The command line: what `cargo xtask isa` passes on, behind the folders that it has made.

use std::path::PathBuf;

use crate::devices::{DEVICES, Device, named};

/// What is asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// Devices; those of [`Device::is_default`] where none is named.
    pub devices: Vec<&'static Device>,
    /// Texts that a label must hold, one of them.
    pub filters: Vec<String>,
    /// JSON instead of a table.
    pub json: bool,
    /// The classes of instructions in the hot loops.
    pub loops: bool,
    /// Write the record.
    pub record: bool,
    /// Compare with the record.
    pub check: bool,
    /// Only name the devices.
    pub list: bool,
    /// Mesa's packages, unpacked.
    pub packages: PathBuf,
    /// The library that answers for i915; `None` where there was no C compiler.
    pub i915: Option<PathBuf>,
    /// Folder of the listings.
    pub out: PathBuf,
}

impl Options {
    /// Reads arguments.
    pub fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{arg} wants a value, found none"));
            match arg.as_str() {
                "--filter" => options.filters.push(value()?.clone()),
                "--packages" => options.packages = value()?.into(),
                "--i915" => options.i915 = Some(value()?.into()),
                "--out" => options.out = value()?.into(),
                "--json" => options.json = true,
                "--loops" => options.loops = true,
                "--record" => options.record = true,
                "--check" => options.check = true,
                "--list" => options.list = true,
                "--all-devices" => options.devices = DEVICES.iter().collect(),
                option if option.starts_with('-') => return Err(format!("unknown option {option}")),
                name => options.devices.push(named(name)?),
            }
        }
        if options.record && options.check {
            return Err("wanted --record or --check, found both".into());
        }
        if options.devices.is_empty() {
            options.devices = DEVICES.iter().filter(|device| device.is_default).collect();
        }
        Ok(options)
    }

    /// Whether a launch is asked for.
    pub fn wants(&self, label: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| label.contains(filter.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn devices_and_options_are_read_in_any_order() {
        let options =
            parse("navi31 --filter gemm/ --out o m1 --filter gemv/ --loops --i915 x").expect("valid");
        let names: Vec<&str> = options.devices.iter().map(|device| device.name).collect();
        assert_eq!(names, ["navi31", "m1"]);
        assert!(options.loops && !options.json && options.out.as_os_str() == "o");
        assert!(options.wants("gemm/tiled 1x1") && options.wants("gemv/x") && !options.wants("softmax/x"));
        assert_eq!(parse("--all-devices").expect("valid").devices.len(), DEVICES.len());
        let default = parse("").expect("valid");
        assert!(default.devices.len() > 4 && default.devices.len() < DEVICES.len() && default.wants("all"));
    }

    #[test]
    fn what_is_not_known_is_an_error_that_says_so() {
        assert!(parse("navi99").is_err_and(|e| e.contains("navi99") && e.contains("navi31")));
        assert!(parse("--fliter x").is_err_and(|e| e.contains("--fliter")));
        assert!(parse("--filter").is_err_and(|e| e.contains("--filter")));
        assert!(parse("--record --check").is_err());
    }
}
