//! Choosing where to train.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use burn_autodiff::Autodiff;
use burn_flex::{Flex, FlexDevice};

#[cfg(any(feature = "cuda", feature = "wgpu"))]
use super::said;
use super::session::Session;
use super::{Engine, EngineError, Plan};

/// Where the network is trained.
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
        "this trainer was built without {0}: build it with `cargo install --path trainer --features {0}`, \
         or give --device cpu"
    )]
    NotBuilt(&'static str),
    /// It is not there, or does not answer.
    #[error("the device {device} cannot be used: {reason}; give --device cpu to train on the processor")]
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
            Self::Auto if cuda::is_present() => Self::Cuda(vec![0]),
            Self::Auto => Self::Cpu,
            chosen => chosen.clone(),
        }
    }

    /// Whether it computes so much faster than the processor that whole networks can be trained.
    pub fn is_accelerator(&self) -> bool {
        matches!(self.resolved(), Self::Cuda(_) | Self::Wgpu)
    }
}

/// Puts the network of `plan` onto `device`.
///
/// # Errors
/// [`OpenError::Device`] where the device cannot be had, [`OpenError::Engine`] where it cannot take the network.
pub fn open(device: &Device, plan: Plan) -> Result<Box<dyn Engine>, OpenError> {
    match device.resolved() {
        Device::Auto | Device::Cpu => Ok(Box::new(Session::<Autodiff<Flex>>::new(plan, vec![FlexDevice], true)?)),
        Device::Cuda(numbers) => cuda::open(&numbers, plan),
        Device::Wgpu => wgpu::open(plan),
    }
}

/// Why an engine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The network on it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What a GPU's driver says when it panics instead of answering.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn guarded<T>(device: &str, open: impl FnOnce() -> Result<T, EngineError>) -> Result<T, OpenError> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open));
    match outcome {
        Ok(result) => Ok(result?),
        Err(panic) => Err(DeviceError::Unusable {
            device: device.to_owned(),
            reason: said(panic.as_ref()).lines().next().unwrap_or_default().to_owned(),
        }
        .into()),
    }
}

/// Whether a file in /dev stands for an NVIDIA card; its driver has others there even where no card is.
#[cfg(any(feature = "cuda", test))]
fn names_a_card(name: &str) -> bool {
    let number = name.strip_prefix("nvidia").unwrap_or_default();
    name == "dxg" || !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(feature = "cuda")]
mod cuda {
    use burn_autodiff::Autodiff;
    use burn_cuda::{Cuda, CudaDevice};

    use super::{Engine, OpenError, Plan, Session, guarded};

    /// Whether there is a card: the driver makes a device for each, WSL one for all. A toolkit alone is none.
    pub fn is_present() -> bool {
        let mut devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        let windows = std::env::var_os("SystemRoot").map(std::path::PathBuf::from);
        devices.any(|device| super::names_a_card(&device.file_name().to_string_lossy()))
            || windows.is_some_and(|root| root.join("System32/nvcuda.dll").exists())
    }

    pub fn open(numbers: &[usize], plan: Plan) -> Result<Box<dyn Engine>, OpenError> {
        guarded(&super::Device::Cuda(numbers.to_vec()).to_string(), || {
            let devices = numbers.iter().map(|number| CudaDevice::new(*number)).collect();
            let session = Session::<Autodiff<Cuda>>::new(plan, devices, false)?;
            Ok(Box::new(session) as Box<dyn Engine>)
        })
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::{DeviceError, Engine, OpenError, Plan};

    pub fn is_present() -> bool {
        false
    }

    pub fn open(_: &[usize], _: Plan) -> Result<Box<dyn Engine>, OpenError> {
        Err(DeviceError::NotBuilt("cuda").into())
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use burn_autodiff::Autodiff;
    use burn_wgpu::{Wgpu, WgpuDevice};

    use super::{Engine, OpenError, Plan, Session, guarded};

    pub fn open(plan: Plan) -> Result<Box<dyn Engine>, OpenError> {
        guarded("wgpu", || {
            let session = Session::<Autodiff<Wgpu>>::new(plan, vec![WgpuDevice::default()], false)?;
            Ok(Box::new(session) as Box<dyn Engine>)
        })
    }
}

#[cfg(not(feature = "wgpu"))]
mod wgpu {
    use super::{DeviceError, Engine, OpenError, Plan};

    pub fn open(_: Plan) -> Result<Box<dyn Engine>, OpenError> {
        Err(DeviceError::NotBuilt("wgpu").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_no_card() {
        assert!(names_a_card("nvidia0") && names_a_card("nvidia12") && names_a_card("dxg"));
        for other in ["nvidiactl", "nvidia-uvm", "nvidia", "null"] {
            assert!(!names_a_card(other), "{other}");
        }
    }

    #[test]
    fn without_cuda_auto_is_the_processor() {
        if cfg!(not(feature = "cuda")) {
            assert_eq!(Device::Auto.resolved(), Device::Cpu);
        }
    }
}
