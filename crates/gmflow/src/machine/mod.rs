//! What this computer is and can do, for bug reports and for the roofs of benchmarks: instructions, caches, rates, and which products the
//! networks take for each precision.
//!
//! ```
//! let facts = gmflow::machine::facts();
//! assert!(facts.cores >= 1);
//! ```

mod roofs;

pub use roofs::{Roof, Roofs};

use crate::kernel::{Bf16Products, MatmulPrecision, bf16_products, rates};
use serde::Serialize;
use std::fs;

/// A processor and its memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    /// Its name and numbers, where the system tells them.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Threads that kernels use.
    pub threads: usize,
    /// Instructions that the kernels look for, by the names that Linux has for them.
    pub instructions: Vec<&'static str>,
    /// Those that are not here.
    pub missing: Vec<&'static str>,
    /// Of the first core.
    pub caches: Vec<Cache>,
    /// Bytes of memory, where the system tells.
    pub memory: Option<u64>,
}

/// A cache that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1 is the nearest.
    pub level: u32,
    /// Its size.
    pub bytes: u64,
}

/// What the products of a precision are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Products {
    /// The precision.
    pub precision: MatmulPrecision,
    /// Whether this processor computes in it; otherwise in f32.
    pub available: bool,
    /// The kernel, in words.
    pub kernel: &'static str,
}

/// What can be told without measuring.
pub fn facts() -> Facts {
    let (mut instructions, mut missing) = (Vec::new(), Vec::new());
    for (name, is_here) in instruction_sets() {
        if is_here { instructions.push(name) } else { missing.push(name) }
    }
    Facts {
        processor: processor(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        threads: rayon::current_num_threads(),
        instructions,
        missing,
        caches: caches(),
        memory: memory(),
    }
}

/// The kernels of every precision on this processor. Measures the rates on which that of bf16 depends.
pub fn products() -> [Products; 3] {
    let bf16 = match bf16_products() {
        _ if !MatmulPrecision::Bf16.is_available() => "none: computed in f32",
        Bf16Products::DotProduct => "dot product of AVX512-BF16",
        Bf16Products::Widened if rates().bf16_products() == Bf16Products::Widened => {
            "weights in bf16, widened to f32: the dot product is slower here"
        }
        Bf16Products::Widened => "weights in bf16, widened to f32, as asked for",
    };
    let f32 = match MatmulPrecision::F32.is_native() {
        true => "multiply-add of AVX-512",
        false => "the gemm library",
    };
    let int8 = if MatmulPrecision::Int8.is_available() {
        "AVX512-VNNI, transformers and perceptrons"
    } else {
        "none: computed in f32"
    };
    [(MatmulPrecision::F32, f32), (MatmulPrecision::Bf16, bf16), (MatmulPrecision::Int8, int8)]
        .map(|(precision, kernel)| Products { precision, available: precision.is_available(), kernel })
}

/// Every instruction set that matters, and whether it is here.
#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<(&'static str, bool)> {
    let [amx_bf16, amx_tile, amx_int8] = amx();
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512_bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512_vnni", is_x86_feature_detected!("avx512vnni")),
        ("amx_tile", amx_tile),
        ("amx_bf16", amx_bf16),
        ("amx_int8", amx_int8),
    ]
}

/// There are no kernels of our own for other processors.
#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// AMX of bf16, tiles and 8-bit integers: bits 22, 24 and 25 of EDX of leaf 7. No kernel uses them; they are told so that reports of
/// machines that have them show it.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "the function became safe in a later version of the standard library")]
fn amx() -> [bool; 3] {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // SAFETY: every x86-64 processor has the instruction.
    let (highest, features) = unsafe { (__cpuid(0).eax, __cpuid_count(7, 0).edx) };
    [22, 24, 25].map(|bit| highest >= 7 && features >> bit & 1 == 1)
}

/// The first processor of /proc/cpuinfo; elsewhere the architecture.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    processor_in(&text).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn processor_in(cpuinfo: &str) -> Option<String> {
    let field = |name: &str| {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let name = field("model name")?;
    Some(match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family} model {model})"),
        _ => name.to_owned(),
    })
}

/// The caches of the first core that hold data, as Linux tells them.
fn caches() -> Vec<Cache> {
    let mut caches: Vec<Cache> = (0..8).filter_map(cache).collect();
    caches.sort_by_key(|cache| cache.level);
    caches
}

fn cache(index: usize) -> Option<Cache> {
    let read = |name: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    if read("type")? == "Instruction" {
        return None;
    }
    Some(Cache { level: read("level")?.parse().ok()?, bytes: size(&read("size")?)? })
}

/// Bytes of a size such as 48K.
fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(['K', 'M']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// The memory of the machine.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        let text =
            "processor : 0\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: INTEL(R) XEON(R)\n\nprocessor : 1\n";
        assert_eq!(processor_in(text).as_deref(), Some("INTEL(R) XEON(R) (family 6 model 207)"));
        assert_eq!(processor_in("processor : 0\n"), None);
        assert_eq!([size("48K"), size("2M"), size("512"), size("x")], [Some(49152), Some(2 << 20), Some(512), None]);
    }

    #[test]
    fn every_instruction_is_here_or_missing() {
        let facts = facts();
        assert_eq!(facts.instructions.len() + facts.missing.len(), instruction_sets().len());
        let has = |name| facts.instructions.contains(&name);
        assert_eq!(has("avx512_bf16") && has("avx512bw"), MatmulPrecision::Bf16.is_available());
        let available = products().map(|products| products.available);
        assert!(available[0]);
        assert_eq!(available[2], MatmulPrecision::Int8.is_available());
    }
}
