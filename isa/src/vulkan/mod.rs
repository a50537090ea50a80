//! Vulkan without wgpu, which does not say what a pipeline has become: a device, its pipelines, and what the driver
//! tells about them. Nothing is submitted.
// Every call of Vulkan is `unsafe`.
#![allow(unsafe_code)]

mod device;
mod pipeline;

use std::ffi::c_char;

pub use device::Device;
pub use pipeline::Executable;

/// The text in an array that ends with a zero.
fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
