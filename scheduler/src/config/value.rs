//! Values of the configuration: each checks itself while it is read, and is written as it may be read again.
//!
//! A [`Text`] is a single word or number, the same in the file and on the command line. Everything a key can hold is a
//! [`Value`]; each `Text` is one.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use vcpu_policies::BuiltIn;
use vcpu_policy_api::yaml;

/// What a key of the configuration can hold.
pub trait Value: Sized {
    /// What is expected, as errors and the documentation say it.
    fn expected() -> String;
    /// Reads it from a file.
    ///
    /// # Errors
    /// If the file holds something else.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    /// As it is written into a file.
    fn written(&self) -> yaml::Value;
    /// The JSON schema of it.
    fn schema() -> serde_json::Value;
    /// What holds when a flag says this and the file says something else.
    #[must_use]
    fn over(self, _file: Self) -> Self {
        self
    }
    /// Whether [`Self::over`] keeps something of the file.
    const ADDS: bool = false;
}

/// A value that is a single word or number.
pub trait Text: Sized {
    /// What is expected.
    fn expected() -> String;
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the text, and what was expected.
    fn parse(text: &str) -> Result<Self, String>;
    /// As it is written.
    fn text(&self) -> String;
    /// The same as YAML.
    fn yaml(&self) -> yaml::Value {
        yaml::Value::String(self.text())
    }
    /// The JSON schema of it.
    fn json_schema() -> serde_json::Value {
        json!({"type": "string"})
    }
}

impl<T: Text> Value for T {
    fn expected() -> String {
        <T as Text>::expected()
    }

    /// The file's text is taken as it stands there: what else YAML may see in it (`0x10`, `1e5`, `no`) makes no difference.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar<T>(PhantomData<T>);
        impl<T: Text> Visitor<'_> for Scalar<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&<T as Text>::expected())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
                T::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Scalar(PhantomData))
    }

    fn written(&self) -> yaml::Value {
        self.yaml()
    }

    fn schema() -> serde_json::Value {
        T::json_schema()
    }
}

/// Reads a [`Value`] where serde wants a seed or a type.
pub(super) struct Read<T>(pub(super) T);

impl<'de, T: Value> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}

/// The seed of a [`Value`].
pub(super) struct Seed<T>(PhantomData<T>);

impl<T> Seed<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Value> DeserializeSeed<'de> for Seed<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::read(deserializer)
    }
}

pub(super) fn not<T: Text>(text: &str) -> String {
    format!(
        "{text:?} is not possible here; expected {}",
        <T as Text>::expected()
    )
}

/// A connection URI, as for virsh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri(String);

impl Uri {
    /// The URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Uri {
    fn expected() -> String {
        "a libvirt connection URI such as qemu:///system".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        // What a URI means is libvirt's business; an alias of libvirt.conf is one too.
        if text.is_empty() || text.contains(char::is_whitespace) || text.contains(char::is_control) {
            return Err(not::<Self>(text));
        }
        Ok(Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
    fn json_schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^\\S+$"})
    }
}

/// The name of a policy, which may be a plugin's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyName(String);

impl PolicyName {
    /// The name of the policy that decides when none is named.
    pub fn usual() -> Self {
        Self(vcpu_policies::DEFAULT.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for PolicyName {
    fn expected() -> String {
        "the name of a policy such as stddev".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(char::is_control) {
            return Err(not::<Self>(text));
        }
        Ok(Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// A built-in policy.
#[derive(Debug, Clone, Copy)]
pub struct Fallback(&'static BuiltIn);

impl Fallback {
    /// The policy.
    pub fn get(self) -> &'static BuiltIn {
        self.0
    }
}

impl PartialEq for Fallback {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Text for Fallback {
    fn expected() -> String {
        "the name of a built-in policy such as observe".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        vcpu_policies::find(text)
            .map(Self)
            .map_err(|error| format!("the fallback of a plugin has to be a built-in policy: {error}"))
    }

    fn text(&self) -> String {
        self.0.name.to_owned()
    }

    fn json_schema() -> serde_json::Value {
        let names: Vec<&str> = vcpu_policies::BUILT_IN.iter().map(|policy| policy.name).collect();
        json!({"enum": names})
    }
}

impl Text for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| not::<Self>(text))
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn yaml(&self) -> yaml::Value {
        (*self).into()
    }

    fn json_schema() -> serde_json::Value {
        json!({"type": "boolean"})
    }
}

/// A path that means the same in every working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// A path of the command line, which is meant from the working directory.
    ///
    /// # Errors
    /// If it is empty, or the working directory cannot be found out.
    pub fn from_here(path: &Path) -> std::io::Result<Self> {
        std::path::absolute(path).map(Self)
    }

    /// The path.
    pub fn get(&self) -> &Path {
        &self.0
    }
}

impl Text for AbsolutePath {
    fn expected() -> String {
        "an absolute path".to_owned()
    }

    fn parse(text: &str) -> Result<Self, String> {
        if !Path::new(text).is_absolute() || text.contains('\0') {
            return Err(format!(
                "{text:?} is not an absolute path; expected one, which begins with /"
            ));
        }
        Ok(Self(text.into()))
    }

    fn text(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }

    fn json_schema() -> serde_json::Value {
        json!({"type": "string", "pattern": "^/"})
    }
}
