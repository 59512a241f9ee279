"""Files of the Lever-Plus research code, in and out, and published tables and other harnesses' logs, in."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_importers() -> dict[str, str]:
    return {
        "table": "leverplus_formats.table:TableImporter",
        "rl-data": "leverplus_formats.rl_data:RlDataImporter",
        "beams": "leverplus_formats.beams:BeamsImporter",
        "embeddings": "leverplus_formats.embeddings:EmbeddingsImporter",
        "lm-eval": "leverplus_formats.lm_eval:LmEvalImporter",
        "lmms-eval": "leverplus_formats.lm_eval:LmmsEvalImporter",
        "inspect": "leverplus_formats.inspect_log:InspectImporter",
    }


@hookimpl
def leverplus_exporters() -> dict[str, str]:
    return {
        "rl-data": "leverplus_formats.rl_data:RlDataExporter",
        "beams": "leverplus_formats.beams:BeamsExporter",
        "embeddings": "leverplus_formats.embeddings:EmbeddingsExporter",
    }
