//! The body of a request for samples, as the client writes it.

use crate::refusal::{Answer, Refusal};
use gmflow::guidance::ReweightScale;
use gmflow::solver::SecondOrderMode;
use gmflow_eval::SamplerOptions;
use gmflow_eval::sampler::solver_by_name;
use gmflow_files::json;
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// The body of a request for samples. What is left out is the model's own choice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SampleBody {
    pub model: Option<String>,
    pub class: Option<ClassName>,
    pub classes: Option<Vec<ClassName>>,
    pub n: Option<u64>,
    pub seed: Option<Seed>,
    pub seeds: Option<Vec<Seed>>,
    pub solver: Option<String>,
    pub order: Option<u8>,
    pub steps: Option<usize>,
    pub substeps: Option<usize>,
    pub guidance: Option<f64>,
    pub cfg: Option<f64>,
    pub orthogonal: Option<f64>,
    pub guidance_interval: Option<[f64; 2]>,
    pub spectral: Option<bool>,
    pub reweight_by: Option<ReweightScale>,
    pub second_order: Option<SecondOrderMode>,
    pub unconverted: Option<bool>,
    pub renoise: Option<f64>,
    pub temperature: Option<f64>,
    pub trace: Option<TraceBody>,
    pub stream: Option<bool>,
}

/// Which steps are kept, and what of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TraceBody {
    #[serde(default = "one")]
    pub every: usize,
    #[serde(default = "x0")]
    pub planes: Vec<Plane>,
}

/// What is kept of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Plane {
    X0,
    X,
    Mixture,
}

fn one() -> usize {
    1
}

fn x0() -> Vec<Plane> {
    vec![Plane::X0]
}

impl SampleBody {
    /// What is asked of the sampler.
    pub fn sampler(&self) -> Answer<SamplerOptions> {
        Ok(SamplerOptions {
            solver: self.solver.as_deref().map(solver_by_name).transpose()?,
            order: self.order,
            steps: self.steps,
            substeps: self.substeps,
            guidance: self.guidance,
            cfg: self.cfg,
            orthogonal: self.orthogonal,
            guidance_interval: self.guidance_interval,
            spectral: self.spectral,
            reweight_by: self.reweight_by,
            second_order: self.second_order,
            unconverted: self.unconverted.unwrap_or_default(),
            renoise: self.renoise,
            temperature: self.temperature,
        })
    }
}

/// The object in a body.
pub(crate) fn object(bytes: &[u8]) -> Answer<Map<String, Value>> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    json::object(bytes).map_err(|wrong| {
        let refusal = Refusal::from(wrong);
        Refusal { status: axum::http::StatusCode::BAD_REQUEST, code: "invalid_body", ..refusal }
    })
}

/// An object as what the caller needs.
pub(crate) fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Answer<T> {
    Ok(json::from_value(Value::Object(fields))?)
}

/// A seed: a number, or its digits as a string, because JavaScript rounds numbers above 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SeedVisitor)
    }
}

struct SeedVisitor;

impl Visitor<'_> for SeedVisitor {
    type Value = Seed;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a seed from 0 to 18446744073709551615")
    }

    fn visit_u64<E>(self, seed: u64) -> Result<Seed, E> {
        Ok(Seed(seed))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seed, E> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let seed = text.parse().ok().filter(|_| digits);
        seed.map(Seed).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// A class: its label, a synonym, or its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassName(pub String);

impl<'de> Deserialize<'de> for ClassName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ClassVisitor)
    }
}

struct ClassVisitor;

impl Visitor<'_> for ClassVisitor {
    type Value = ClassName;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a class by its label or index")
    }

    fn visit_u64<E>(self, index: u64) -> Result<ClassName, E> {
        Ok(ClassName(index.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<ClassName, E> {
        Ok(ClassName(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Answer<SampleBody> {
        read(object(text.as_bytes())?)
    }

    #[test]
    fn seeds_are_numbers_or_digits() {
        let read = body(r#"{"seeds": [7, "18446744073709551615", "007"]}"#).unwrap();
        assert_eq!(read.seeds.unwrap(), [Seed(7), Seed(u64::MAX), Seed(7)]);
        for wrong in ["-1", "1.5", "\"x\"", "\"\"", "\"18446744073709551616\"", "\"+1\"", "null"] {
            let refused = body(&format!("{{\"seeds\": [{wrong}]}}"));
            let refusal = refused.expect_err(wrong);
            let field = refusal.wrong.expect("a field").field;
            assert!(field.starts_with("seeds"), "{wrong}: {field}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refusal = body(r#"{"stepz": 4}"#).unwrap_err();
        assert_eq!(refusal.status.as_u16(), 422);
        assert!(refusal.message.contains("stepz") && refusal.message.contains("steps"), "{}", refusal.message);
        let refusal = body(r#"{"steps": "four"}"#).unwrap_err();
        assert_eq!(refusal.wrong.unwrap().field, "steps");
        let refusal = body(r#"{"trace": {"planes": ["x1"]}}"#).unwrap_err();
        assert!(refusal.message.starts_with("trace.planes"), "{}", refusal.message);
        assert_eq!(body("{").unwrap_err().status.as_u16(), 400);
        assert_eq!(body("[]").unwrap_err().status.as_u16(), 400);
        assert!(body("").unwrap().steps.is_none());
        let solver = SampleBody { solver: Some("magic".into()), ..SampleBody::default() };
        assert_eq!(solver.sampler().unwrap_err().wrong.unwrap().field, "solver");
    }
}
