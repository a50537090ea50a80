//! Filters that give numbers.

use super::limits::{Res, fail};
use super::run::Args;
use super::strings::integer;
use super::value::{Value, parse_float, parse_int};

/// `int`: whole numbers of text in a base, else what a float gives, else a default.
pub(super) fn to_int(value: &Value, args: Args) -> Res<Value> {
    let [default, base] = args.bind("int", ["default", "base"], 0)?;
    let base = integer(base.as_ref(), 10)?;
    let default = default.unwrap_or(Value::Int(0));
    match value {
        Value::Undefined(message) => fail(message.to_string()),
        Value::Str(text) => {
            if text.text.len() > 4300 {
                return Ok(default);
            }
            let radix = u32::try_from(base).ok().filter(|b| *b == 0 || (2..=36).contains(b));
            if let Some(v) = radix.and_then(|radix| parse_int(&text.text, radix)) {
                return Ok(Value::Int(v));
            }
            match parse_float(&text.text) {
                Some(v) if v.is_finite() => super::printf::truncate(v).map(Value::Int),
                _ => Ok(default),
            }
        }
        Value::Float(v) if v.is_infinite() => fail("cannot convert float infinity to integer"),
        Value::Float(v) if v.is_nan() => Ok(default),
        Value::Float(v) => super::printf::truncate(*v).map(Value::Int),
        other => Ok(other.as_int().map_or(default, Value::Int)),
    }
}

/// `round`: to even, up or down, at a power of ten.
pub(super) fn round(value: &Value, args: Args) -> Res<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"], 0)?;
    let precision = integer(precision.as_ref(), 0)?;
    let method = method.as_ref().map_or(Some("common"), |v| v.as_str());
    let Some(method @ ("common" | "ceil" | "floor")) = method else {
        return fail("method must be common, ceil or floor");
    };
    let Some(number) = value.as_float() else {
        return fail(format!("type {} doesn't define __round__ method", value.type_name()));
    };
    if method == "common" {
        if let Some(v) = value.as_int() {
            if precision >= 0 {
                return Ok(Value::Int(v));
            }
            let Some(unit) = u32::try_from(-precision).ok().and_then(|p| 10i128.checked_pow(p)) else {
                return Ok(Value::Int(0));
            };
            let low = v.div_euclid(unit);
            let rest = v.rem_euclid(unit);
            let up = rest * 2 > unit || (rest * 2 == unit && low % 2 != 0);
            return Ok(Value::Int((low + i128::from(up)) * unit));
        }
        if !number.is_finite() || precision > 340 {
            return Ok(value.clone());
        }
        if precision < 0 {
            if precision < -308 {
                return Ok(Value::Float(0f64.copysign(number)));
            }
            let unit = 10f64.powi(-precision as i32);
            return Ok(Value::Float((number / unit).round_ties_even() * unit));
        }
        let text = format!("{number:.*}", precision as usize);
        return Ok(Value::Float(text.parse().unwrap_or(number)));
    }
    let Some(power) = i32::try_from(precision).ok().filter(|p| p.abs() <= 300) else {
        return fail("round: a precision beyond 300 digits is not supported");
    };
    if !number.is_finite() {
        return fail("cannot convert float to integer");
    }
    let unit = 10f64.powi(power);
    let scaled = number * unit;
    let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
    // `math.ceil` gives an integer, which has no negative zero.
    Ok(Value::Float((whole + 0.0) / unit))
}
