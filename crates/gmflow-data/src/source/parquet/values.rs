//! The values of a column, whatever type they are stored in.
//!
//! Of the crate arrow-cast, which does this for all types of Arrow, a few lines would be used; it takes half a minute to compile.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, LargeBinaryArray};
use arrow_schema::DataType;

/// The values, row by row, or what is wrong with them in words.
type Values<T> = Result<Vec<Option<T>>, String>;

/// Numbers of a type, each converted.
fn numbers<N: ArrowPrimitiveType, T>(
    array: &dyn Array,
    convert: impl Fn(N::Native) -> Result<T, String>,
) -> Values<T> {
    array.as_primitive::<N>().iter().map(|value| value.map(&convert).transpose()).collect()
}

/// The values of a dictionary in the order of its keys.
fn by_key<'a, T: Clone>(array: &'a dyn Array, read: impl Fn(&'a dyn Array) -> Values<T>) -> Option<Values<T>> {
    let dictionary = array.as_any_dictionary_opt()?;
    let values = match read(dictionary.values().as_ref()) {
        Ok(values) if values.is_empty() => return Some(Ok(vec![None; array.len()])),
        Ok(values) => values,
        Err(wrong) => return Some(Err(wrong)),
    };
    let keys = dictionary.normalized_keys().into_iter().enumerate();
    let value = |(row, key): (usize, usize)| match dictionary.keys().is_null(row) {
        true => None,
        false => values.get(key).cloned().flatten(),
    };
    Some(Ok(keys.map(value).collect()))
}

fn of_no_such_type<T>(array: &dyn Array) -> Values<T> {
    Err(format!("values of type {}", array.data_type()))
}

/// Whole numbers.
pub(super) fn whole(array: &dyn Array) -> Values<i64> {
    match array.data_type() {
        DataType::Int8 => numbers::<Int8Type, _>(array, |value| Ok(i64::from(value))),
        DataType::Int16 => numbers::<Int16Type, _>(array, |value| Ok(i64::from(value))),
        DataType::Int32 => numbers::<Int32Type, _>(array, |value| Ok(i64::from(value))),
        DataType::Int64 => numbers::<Int64Type, _>(array, Ok),
        DataType::UInt8 => numbers::<UInt8Type, _>(array, |value| Ok(i64::from(value))),
        DataType::UInt16 => numbers::<UInt16Type, _>(array, |value| Ok(i64::from(value))),
        DataType::UInt32 => numbers::<UInt32Type, _>(array, |value| Ok(i64::from(value))),
        DataType::UInt64 => numbers::<UInt64Type, _>(array, |value| {
            i64::try_from(value).map_err(|_| format!("{value} is more than {}", i64::MAX))
        }),
        _ => by_key(array, whole).unwrap_or_else(|| of_no_such_type(array)),
    }
}

/// Numbers that may have a fraction.
pub(super) fn floats(array: &dyn Array) -> Values<f64> {
    let scaled = |value: f64, scale: i8| value / 10f64.powi(i32::from(scale));
    match *array.data_type() {
        DataType::Float16 => numbers::<Float16Type, _>(array, |value| Ok(value.to_f64())),
        DataType::Float32 => numbers::<Float32Type, _>(array, |value| Ok(f64::from(value))),
        DataType::Float64 => numbers::<Float64Type, _>(array, Ok),
        DataType::Decimal32(_, scale) => {
            numbers::<Decimal32Type, _>(array, |value| Ok(scaled(f64::from(value), scale)))
        }
        DataType::Decimal64(_, scale) => numbers::<Decimal64Type, _>(array, |value| Ok(scaled(value as f64, scale))),
        DataType::Decimal128(_, scale) => {
            numbers::<Decimal128Type, _>(array, |value| Ok(scaled(value as f64, scale)))
        }
        DataType::Decimal256(_, scale) => numbers::<Decimal256Type, _>(array, |value| {
            let value = value.to_i128().ok_or_else(|| format!("{value} has too many digits"))?;
            Ok(scaled(value as f64, scale))
        }),
        _ => by_key(array, floats).unwrap_or_else(|| of_no_such_type(array)),
    }
}

/// What is true or false.
pub(super) fn booleans(array: &dyn Array) -> Values<bool> {
    match array.data_type() {
        DataType::Boolean => Ok(array.as_boolean().iter().collect()),
        _ => by_key(array, booleans).unwrap_or_else(|| of_no_such_type(array)),
    }
}

/// Text, or bytes that are text.
pub(super) fn texts(array: &dyn Array) -> Values<&str> {
    match array.data_type() {
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().collect()),
        DataType::LargeUtf8 => Ok(array.as_string::<i64>().iter().collect()),
        DataType::Utf8View => Ok(array.as_string_view().iter().collect()),
        DataType::Dictionary(..) => by_key(array, texts).unwrap_or_else(|| of_no_such_type(array)),
        _ => {
            let text = |(row, bytes): (usize, Option<_>)| {
                let text =
                    |bytes| std::str::from_utf8(bytes).map_err(|_| format!("bytes that are no text in row {row}"));
                bytes.map(text).transpose()
            };
            bytes(array)?.into_iter().enumerate().map(text).collect()
        }
    }
}

/// Bytes.
fn bytes(array: &dyn Array) -> Values<&[u8]> {
    match array.data_type() {
        DataType::Binary => Ok(array.as_binary::<i32>().iter().collect()),
        DataType::LargeBinary => Ok(array.as_binary::<i64>().iter().collect()),
        DataType::BinaryView => Ok(array.as_binary_view().iter().collect()),
        DataType::FixedSizeBinary(_) => Ok(array.as_fixed_size_binary().iter().collect()),
        _ => by_key(array, bytes).unwrap_or_else(|| of_no_such_type(array)),
    }
}

/// A dictionary of bytes as bytes in every row; other arrays as they are.
pub(super) fn without_dictionary(array: &ArrayRef) -> Result<ArrayRef, String> {
    match array.data_type() {
        DataType::Dictionary(..) => Ok(std::sync::Arc::new(LargeBinaryArray::from_iter(bytes(array.as_ref())?))),
        _ => Ok(array.clone()),
    }
}
