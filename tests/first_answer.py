"""A program that the workflow of macOS and Windows runs: the package is imported, and a model answers for a picture."""

from pathlib import Path

from transformers import pipeline

import hf_galaxy

ROOT = Path(__file__).parent.parent


def main() -> None:
    classify = pipeline("galaxy-morphology", model=str(ROOT / "spaces_app/models/lite0"))
    [prediction] = classify(str(ROOT / "spaces_app/examples/two_arms.jpg"), campaign="gz2")
    assert prediction["campaign"] == "gz2"
    assert "spiral" in prediction["description"], prediction["description"]
    print(f"hf_galaxy {hf_galaxy.__version__}: {prediction['description']}")


if __name__ == "__main__":
    main()
