//! Starts this program again for each device, with Mesa's libraries from their folder and the shim before them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::devices::{Device, Driver};
use crate::options::Options;
use crate::row::Compiled;

/// Folder of the libraries in Debian's packages for amd64.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// What shims and drivers say whatever happens.
const CHATTER: [&str; 4] = ["WARNING", "MESA: warning", "pci bus info", "Unknown DRM_IOCTL"];

/// Compiles for all devices, as many at a time as there are cores; in the order of the options.
pub fn compile_all(options: &Options) -> Result<Vec<Compiled>, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        while let Some(device) = options.devices.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = compile(device, options).map_err(|error| format!("{}: {error}", device.name));
            if let Ok(mut results) = results.lock() {
                results.push((device.name, result));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().map_err(|e| e.to_string())?;
    results.sort_by_key(|(name, _)| options.devices.iter().position(|device| device.name == *name));
    results.into_iter().map(|(_, result)| result).collect()
}

fn compile(device: &Device, options: &Options) -> Result<Compiled, String> {
    let output = command(device, options)?.output().map_err(|e| format!("did not start: {e}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let told: Vec<&str> =
        errors.lines().filter(|line| !CHATTER.iter().any(|chatter| line.contains(chatter))).collect();
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, told.join("\n")));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{e} in what was printed\n{}", told.join("\n")))
}

fn command(device: &Device, options: &Options) -> Result<Command, String> {
    let libraries = options.packages.join(LIBRARIES);
    let mut preloaded: Vec<PathBuf> = vec![libraries.join(device.driver.shim())];
    if device.driver == Driver::Intel {
        let i915 = options
            .i915
            .clone()
            .ok_or("found no C compiler, wanted `cc` for the library that answers for i915")?;
        preloaded.insert(0, i915);
    }
    let preloaded: Vec<String> = preloaded.iter().map(|path| path.display().to_string()).collect();
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    // The loader of Mesa's own C library: the one of this system may be older.
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg("--preload").arg(preloaded.join(":")).arg(program);
    command.arg("compile").arg(device.name).arg("--out").arg(&options.out);
    for filter in &options.filters {
        command.arg("--filter").arg(filter);
    }
    let manifest = options.packages.join("usr/share/vulkan/icd.d").join(device.driver.manifest());
    command
        .stdin(Stdio::null())
        .env("VK_DRIVER_FILES", manifest)
        .env("VK_LOADER_LAYERS_DISABLE", "~implicit~")
        .env("MESA_SHADER_CACHE_DISABLE", "true")
        .envs(device.environment.iter().copied());
    for name in ["VK_ICD_FILENAMES", "VK_INSTANCE_LAYERS", "LD_LIBRARY_PATH", "LD_PRELOAD"] {
        command.env_remove(name);
    }
    Ok(command)
}
