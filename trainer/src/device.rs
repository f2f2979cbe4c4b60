//! The devices that compute: the processor and graphics cards.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Where networks are trained, and on CUDA devices also where features are computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The first CUDA device where this program was built for CUDA and there is one; else the processor.
    Auto,
    /// The processor, all cores.
    Cpu,
    /// CUDA devices, counted from 0, that share each minibatch.
    Cuda(Vec<usize>),
    /// The default adapter of WebGPU: Vulkan, Metal or Direct3D.
    Wgpu,
}

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum DeviceError {
    /// No such name.
    #[error(
        "there is no device {0:?}: give auto, cpu, cuda, cuda:1 (the second one), cuda:0,1 (two together), or wgpu"
    )]
    Unknown(String),
    /// The program was built without it.
    #[error(
        "this trainer was built without {0}: build it with `cargo install --locked --path trainer --features {0}`, \
         or give --device cpu"
    )]
    NotBuilt(&'static str),
    /// It is not there, or does not answer.
    #[error("the device {device} cannot be used: {reason}; give --device cpu to work on the processor")]
    Unusable {
        /// Which device.
        device: String,
        /// What its driver said.
        reason: String,
    },
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(vec![0])),
            None if text == "wgpu" => Ok(Self::Wgpu),
            Some(("cuda", numbers)) => cards(numbers)
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown(text.to_owned())),
            _ => Err(DeviceError::Unknown(text.to_owned())),
        }
    }
}

/// Different numbers between commas.
fn cards(text: &str) -> Option<Vec<usize>> {
    let numbers: Vec<usize> = text
        .split(',')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let different: BTreeSet<&usize> = numbers.iter().collect();
    (different.len() == numbers.len()).then_some(numbers)
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
                write!(formatter, "cuda:{}", numbers.join(","))
            }
            Self::Wgpu => formatter.write_str("wgpu"),
        }
    }
}

impl Device {
    /// The device that is meant by `auto`; any other is itself.
    #[must_use]
    pub fn resolved(&self) -> Self {
        match self {
            Self::Auto if cfg!(feature = "cuda") && has_card() => Self::Cuda(vec![0]),
            Self::Auto => Self::Cpu,
            chosen => chosen.clone(),
        }
    }

    /// The CUDA devices that are asked for by name.
    pub fn named_cards(&self) -> &[usize] {
        match self {
            Self::Cuda(numbers) => numbers,
            _ => &[],
        }
    }

    /// Refuses what cannot be had, as far as can be told before anything is obtained for it; `is_refined` says whether
    /// a network is trained there, for which this program must be built.
    ///
    /// # Errors
    /// [`DeviceError::NotBuilt`] and [`DeviceError::Unusable`].
    pub fn check(&self, is_refined: bool) -> Result<(), DeviceError> {
        match self {
            Self::Cuda(_) if is_refined && cfg!(not(feature = "cuda")) => Err(DeviceError::NotBuilt("cuda")),
            Self::Wgpu if is_refined && cfg!(not(feature = "wgpu")) => Err(DeviceError::NotBuilt("wgpu")),
            Self::Cuda(_) if !has_card() && !has_driver() => Err(DeviceError::Unusable {
                device: self.to_string(),
                reason: "there is no NVIDIA card with its driver on this machine".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether it computes so much faster than the processor that whole networks can be trained.
    pub fn is_accelerator(&self) -> bool {
        matches!(self.resolved(), Self::Cuda(_) | Self::Wgpu)
    }
}

/// Whether there is a CUDA card: the driver makes a device for each, WSL one for all. A toolkit alone is none.
fn has_card() -> bool {
    let mut devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let windows = std::env::var_os("SystemRoot").map(std::path::PathBuf::from);
    devices.any(|device| names_a_card(&device.file_name().to_string_lossy()))
        || windows.is_some_and(|root| root.join("System32/nvcuda.dll").exists())
}

/// Whether there is the kernel's part of the driver, which makes the devices of its cards when they are first used.
fn has_driver() -> bool {
    std::path::Path::new("/proc/driver/nvidia/version").exists()
}

/// Whether a file in /dev stands for an NVIDIA card; its driver has others there even where no card is.
fn names_a_card(name: &str) -> bool {
    let number = name.strip_prefix("nvidia").unwrap_or_default();
    name == "dxg" || !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_and_written_by_its_name() {
        for (name, cards) in [("cuda:1", vec![1]), ("cuda:0,2", vec![0, 2])] {
            assert_eq!(name.parse(), Ok(Device::Cuda(cards.clone())));
            assert_eq!(Device::Cuda(cards).to_string(), name);
        }
        for name in ["tpu", "cuda:", "cuda:1,1", "cuda:0,x"] {
            let unknown = name.parse::<Device>().expect_err("no device");
            assert!(unknown.to_string().contains(name), "{unknown}");
        }
    }

    #[test]
    fn a_driver_is_no_card() {
        assert!(names_a_card("nvidia0") && names_a_card("nvidia12") && names_a_card("dxg"));
        for other in ["nvidiactl", "nvidia-uvm", "nvidia", "null"] {
            assert!(!names_a_card(other), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_before_anything_is_obtained() {
        let cards = Device::Cuda(vec![1]);
        assert_eq!((Device::Auto.check(true), Device::Cpu.check(true)), (Ok(()), Ok(())));
        if cfg!(not(feature = "cuda")) {
            assert_eq!(cards.check(true), Err(DeviceError::NotBuilt("cuda")));
        }
        if cfg!(not(feature = "wgpu")) {
            assert_eq!(Device::Wgpu.check(true), Err(DeviceError::NotBuilt("wgpu")));
        }
        let features = cards.check(false);
        assert_eq!(features.is_ok(), has_card() || has_driver(), "{features:?}");
        assert_eq!(Device::Wgpu.check(false), Ok(()));
    }

    #[test]
    fn without_cuda_auto_is_the_processor() {
        if cfg!(not(feature = "cuda")) {
            assert_eq!(Device::Auto.resolved(), Device::Cpu);
        }
    }
}
