"""The description of a dataset as Croissant JSON-LD (docs.mlcommons.org/croissant), which catalogues of datasets read."""

from datetime import date

import datasets

from hf_galaxy.publishing.dataset_card import Prose
from hf_galaxy.publishing.writer import Config

# The terms that the format defines, as its specification 1.0 lists them.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
TYPES = {
    "string": "sc:Text",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "float32": "cr:Float32",
    "float64": "cr:Float64",
}


def croissant(repo: str | None, prose: Prose, configs: dict[str, Config], published: date) -> dict:
    """The JSON-LD of a published dataset; its files are named relative to its folder.

    Args:
        repo: where it is on the Hub.
        configs: what it offers; each becomes a record set.
        published: when.
    """
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": prose.title,
        "description": prose.summary,
        "license": prose.license,
        "citeAs": prose.section("Citation"),
        "keywords": prose.tags,
        "url": f"https://huggingface.co/datasets/{repo}" if repo else prose.source or "not published yet",
        "datePublished": published.isoformat(),
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": f"files-{config}",
                "encodingFormat": "application/x-parquet",
                "includes": [pattern for patterns in offered.files.values() for pattern in patterns],
            }
            for config, offered in configs.items()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": config,
                "key": {"@id": f"{config}/id_str"},
                "field": [_field(config, column, feature) for column, feature in offered.features.items()],
            }
            for config, offered in configs.items()
        ],
    }


def _field(config, column, feature):
    picture = isinstance(feature, datasets.Image)
    source = {"fileSet": {"@id": f"files-{config}"}, "extract": {"column": column}}
    field = {
        "@type": "cr:Field",
        "@id": f"{config}/{column}",
        "dataType": "sc:ImageObject" if picture else TYPES.get(feature.dtype, "sc:Text"),
    }
    if isinstance(feature, datasets.ClassLabel):
        field["description"] = ", ".join(f"{i}: {name}" for i, name in enumerate(feature.names))
    return field | {"source": source | ({"transform": {"jsonPath": "bytes"}} if picture else {})}
