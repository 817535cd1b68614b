//! What a guest imports from the contract: its log, its progress, and its configuration.

use super::bindings::weir::plugin::{tool_config, tool_log, tool_progress, tool_types};
use super::guest::Guest;
use super::log::{LogLevel, LogLine, Progress};

impl tool_log::Host for Guest {
    fn write(&mut self, level: tool_log::LogLevel, message: String, fields: Option<String>) -> wasmtime::Result<()> {
        let level = match level {
            tool_log::LogLevel::Trace => LogLevel::Trace,
            tool_log::LogLevel::Debug => LogLevel::Debug,
            tool_log::LogLevel::Info => LogLevel::Info,
            tool_log::LogLevel::Warn => LogLevel::Warn,
            tool_log::LogLevel::Error => LogLevel::Error,
        };
        self.meter.log().write(LogLine { level, message, fields });
        Ok(())
    }
}

impl tool_progress::Host for Guest {
    fn report(&mut self, done: f64, total: Option<f64>, message: Option<String>) -> wasmtime::Result<()> {
        self.meter.log().report(Progress { done, total, message });
        Ok(())
    }
}

impl tool_config::Host for Guest {
    fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.outbound.setting(&name))
    }

    fn secret_placeholder(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.outbound.placeholder(&name))
    }
}

impl tool_types::Host for Guest {}
