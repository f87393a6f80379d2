//! Platforms: operating system, architecture and variant that an image is made for.
//!
//! Names and normal forms are those of Go and the OCI image index (`image-index.md`); what may run
//! on what follows containerd's `platforms` module.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result};

/// A platform in normal form: `linux/amd64`, `linux/arm64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Platform {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The architecture, such as `amd64`.
    pub architecture: String,
    /// The variant, such as `v7`; empty for the architecture's usual one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The version of the operating system, which only Windows images have.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// What the image needs of the operating system.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl Platform {
    /// The platform of these names, brought into normal form. Empty `os` is `linux`.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalize_architecture(architecture, variant);
        Self {
            os: normalize_os(os),
            architecture,
            variant,
            os_version: String::new(),
            os_features: Vec::new(),
        }
    }

    /// The platform that this program was compiled for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            "mips64" if cfg!(target_endian = "little") => "mips64le",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    /// How well an image for `image` runs where `self` is asked for: 0 is best, `None` is not at
    /// all. A processor also runs what was made for its older variants, 64-bit ARM runs 32-bit
    /// ARM, amd64 runs 386.
    pub fn rank(&self, image: &Platform) -> Option<usize> {
        if self.os != image.os || !image.os_features.iter().all(|f| self.os_features.contains(f)) {
            return None;
        }
        self.runnable()
            .iter()
            .position(|(arch, variant)| *arch == image.architecture && *variant == image.variant)
    }

    /// Architectures and variants that run on this one, best first.
    fn runnable(&self) -> Vec<(String, String)> {
        let own = (self.architecture.clone(), self.variant.clone());
        let mut list = vec![own];
        match self.architecture.as_str() {
            "amd64" => {
                list.extend(older("amd64", &self.variant, 2));
                if !self.variant.is_empty() {
                    list.push(("amd64".to_owned(), String::new()));
                }
                list.push(("386".to_owned(), String::new()));
            }
            "arm" => list.extend(older("arm", &self.variant, 5)),
            "arm64" => {
                list.extend(older_arm64(&self.variant));
                list.push(("arm".to_owned(), "v8".to_owned()));
                list.extend(older("arm", "v8", 5));
            }
            _ => {}
        }
        list
    }
}

/// The variants below `variant` down to `v{last}`.
fn older(architecture: &str, variant: &str, last: u32) -> Vec<(String, String)> {
    let version = variant.strip_prefix('v').and_then(|v| v.parse::<u32>().ok()).unwrap_or(0);
    // No processor has a version above 15; the bound is for names from outside.
    (last..version.min(16)).rev().map(|v| (architecture.to_owned(), format!("v{v}"))).collect()
}

/// The variants of 64-bit ARM below `variant`: v9.x extends v8.(x+5).
fn older_arm64(variant: &str) -> Vec<(String, String)> {
    let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
    let minor: u32 = minor.parse().unwrap_or(0);
    let minor = minor.min(9);
    let mut variants = Vec::new();
    let below_v8 = match major {
        "v9" => {
            variants.extend((1..minor).rev().map(|m| format!("v9.{m}")));
            if minor > 0 {
                variants.push("v9".to_owned());
            }
            minor + 6
        }
        "v8" => minor,
        _ => 0,
    };
    variants.extend((1..below_v8).rev().map(|m| format!("v8.{m}")));
    if below_v8 > 0 {
        variants.push(String::new());
    }
    variants.into_iter().map(|variant| ("arm64".to_owned(), variant)).collect()
}

fn normalize_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "" => "linux".to_owned(),
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

fn normalize_architecture(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "v9.0") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

const SYSTEMS: [&str; 6] = ["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd"];
const ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64",
    "ppc64le", "riscv64", "s390x", "sparc64", "wasm", "ppc",
];

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// Parses `OS`, `ARCH`, `OS/ARCH` or `OS/ARCH/VARIANT`; what is left out is the host's.
impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            let shown: String = text.chars().take(100).collect();
            Error::invalid_argument(format!(
                "platform {shown:?} {why}; write it like linux/amd64 or linux/arm/v7"
            ))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let is_name = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(is_name) {
            return Err(invalid("must consist of letters, digits, '_', '-' and '.'"));
        }
        match parts.as_slice() {
            [one] => {
                let host = Self::host();
                let os = normalize_os(one);
                if SYSTEMS.contains(&os.as_str()) {
                    return Ok(Self { os, ..host });
                }
                let platform = Self::new(&host.os, one, "");
                if ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    return Ok(platform);
                }
                Err(invalid("is neither a known operating system nor a known architecture"))
            }
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(invalid("has too many parts")),
        }
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            os: Option<String>,
            architecture: Option<String>,
            variant: Option<String>,
            #[serde(rename = "os.version")]
            os_version: Option<String>,
            #[serde(rename = "os.features")]
            os_features: Option<Vec<String>>,
        }
        let raw = Raw::deserialize(deserializer)?;
        let text = |field: Option<String>| field.unwrap_or_default();
        let mut platform = Self::new(&text(raw.os), &text(raw.architecture), &text(raw.variant));
        platform.os_version = text(raw.os_version);
        platform.os_features = raw.os_features.unwrap_or_default();
        Ok(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    /// The first of `images` that `wanted` would choose.
    fn best<'a>(wanted: &str, images: &[&'a str]) -> Option<&'a str> {
        let wanted = parse(wanted);
        images
            .iter()
            .filter_map(|image| wanted.rank(&parse(image)).map(|rank| (rank, *image)))
            .min()
            .map(|(_, image)| image)
    }

    #[test]
    fn parses_to_the_normal_form() {
        let cases = [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("i386", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
            ("s390x", "linux/s390x"),
        ];
        for (text, normal) in cases {
            assert_eq!(parse(text).to_string(), normal, "{text}");
            assert_eq!(parse(normal), parse(text));
        }
        assert_eq!(parse("linux"), Platform::host());
    }

    #[test]
    fn refuses_malformed_platforms() {
        for text in ["", "/", "linux/", "linux/*", "a/b/c/d", "plan10", "li nux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn prefers_the_newest_variant_that_runs() {
        let arm = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8", "linux/arm64"];
        assert_eq!(best("linux/arm/v7", &arm), Some("linux/arm/v7"));
        assert_eq!(best("linux/arm/v6", &arm), Some("linux/arm/v6"));
        assert_eq!(best("linux/arm64", &arm), Some("linux/arm64"));
        assert_eq!(best("linux/arm64", &arm[..3]), Some("linux/arm/v7"));
        assert_eq!(
            best("linux/arm64/v9.2", &["linux/arm64/v8.7", "linux/arm64"]),
            Some("linux/arm64/v8.7")
        );
        assert_eq!(best("linux/arm64", &["linux/arm64/v9"]), None);
        assert_eq!(best("linux/amd64", &["linux/386", "linux/amd64"]), Some("linux/amd64"));
        assert_eq!(best("linux/amd64", &["linux/386"]), Some("linux/386"));
        assert_eq!(best("linux/amd64", &["linux/amd64/v2"]), None);
        assert_eq!(
            best("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"]),
            Some("linux/amd64/v2")
        );
        assert_eq!(best("linux/amd64", &["windows/amd64", "linux/arm64"]), None);
        assert_eq!(best("linux/arm/v6", &["linux/arm/v7"]), None);
    }

    #[test]
    fn json_is_that_of_an_index() {
        let json = r#"{"architecture":"arm64","os":"linux","variant":"v8","os.features":null}"#;
        let platform: Platform = serde_json::from_str(json).unwrap();
        assert_eq!(platform, parse("linux/arm64"));
        let written = serde_json::to_string(&platform).unwrap();
        assert_eq!(written, r#"{"os":"linux","architecture":"arm64"}"#);
    }

    #[test]
    fn an_image_that_needs_unknown_features_is_not_chosen() {
        let json = r#"{"architecture":"amd64","os":"linux","os.features":["new"]}"#;
        let image: Platform = serde_json::from_str(json).unwrap();
        assert_eq!(parse("linux/amd64").rank(&image), None);
    }
}
