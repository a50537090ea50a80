//! Composed shaders are parsed and validated with naga; what the host declares about them must hold.

use girih_kernels::shaders::{Dialect, compose};
use girih_kernels::{Access, Caps, Choice, KernelSpec, Requires};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// What naga lets a shader use on a device.
pub fn capabilities(caps: &Caps) -> Capabilities {
    let mut all = Capabilities::all();
    all.set(Capabilities::SUBGROUP, caps.subgroup_size.is_some());
    all.set(Capabilities::SHADER_FLOAT16, caps.f16);
    all.set(Capabilities::SHADER_INT64, caps.int64);
    all.set(Capabilities::COOPERATIVE_MATRIX, !caps.matrix_shapes.is_empty());
    all
}

/// Whether a shader has 64-bit integers, which no browser does.
pub fn has_int64(wgsl: &str) -> bool {
    wgsl.contains("u64")
}

/// Checks that what a choice requires is what its shader enables.
fn check_requires(choice: &Choice) -> Result<(), String> {
    let text = compose(choice.file, &choice.selection, Dialect::Browser).map_err(|e| e.to_string())?.wgsl;
    let enables = |feature: &str| text.lines().any(|line| line == format!("enable {feature};"));
    // A shader that needs larger subgroups than 4 has their size as a constant.
    let lanes = enables("subgroups").then(|| choice.selection.get_u32("LANES").unwrap_or(4));
    let found = Requires { lanes, f16: enables("f16"), int64: has_int64(&text) };
    if found == choice.requires {
        Ok(())
    } else {
        Err(format!("needs {found:?}, declared {:?}", choice.requires))
    }
}

/// Checks one choice of a kernel.
pub fn check(spec: &KernelSpec, choice: &Choice, capabilities: Capabilities) -> Result<(), String> {
    let composed = compose(choice.file, &choice.selection, Dialect::Naga).map_err(|e| e.to_string())?;
    let module = naga::front::wgsl::parse_str(&composed.wgsl).map_err(|e| {
        let at = e.location(&composed.wgsl).and_then(|l| composed.origin(l.line_number));
        format!("{} at {}", e.message(), at.unwrap_or_default())
    })?;
    Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(&composed.wgsl))?;
    check_requires(choice)?;
    let entry = module.entry_points.iter().find(|e| e.name == "main").ok_or("no entry point `main`")?;
    let invocations: u32 = entry.workgroup_size.iter().product();
    if invocations != choice.invocations {
        return Err(format!("{invocations} invocations, declared {}", choice.invocations));
    }
    let mut workgroup_bytes = 0;
    let mut bindings = vec![None; spec.bindings.len() + 1];
    for (_, var) in module.global_variables.iter() {
        let size = module.types[var.ty].inner.size(module.to_ctx());
        if var.space == naga::AddressSpace::WorkGroup {
            workgroup_bytes += size.next_multiple_of(16);
        }
        if let Some(binding) = &var.binding {
            let slot = bindings.get_mut(binding.binding as usize).ok_or("a binding that the spec lacks")?;
            *slot = Some((var.name.clone().unwrap_or_default(), var.space, size));
        }
    }
    if workgroup_bytes.next_multiple_of(16) != choice.workgroup_bytes.next_multiple_of(16) {
        return Err(format!(
            "{workgroup_bytes} bytes of workgroup memory, declared {}",
            choice.workgroup_bytes
        ));
    }
    if let Some((_, space, size)) = &bindings[0]
        && (*space != naga::AddressSpace::Uniform || *size as usize != spec.params_bytes)
    {
        return Err(format!("Params is {size} bytes in the shader, {} on the host", spec.params_bytes));
    }
    for (declared, found) in spec.bindings.iter().zip(&bindings[1..]) {
        // A variant may leave a binding out; what it declares must be as the spec says.
        let Some((name, space, _)) = found else { continue };
        let naga::AddressSpace::Storage { access } = space else {
            return Err(format!("{name} is not storage"));
        };
        let writes = access.contains(naga::StorageAccess::STORE);
        if name != declared.name || writes != (declared.access == Access::ReadWrite) {
            return Err(format!("binding {name} (writes: {writes}), declared {declared:?}"));
        }
    }
    Ok(())
}
