//! Values in [-1, 1] and the bytes that pictures hold for them.

/// The byte that stands for a value in [-1, 1]; values outside are cut off.
pub fn to_byte(value: f32) -> u8 {
    ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
}
