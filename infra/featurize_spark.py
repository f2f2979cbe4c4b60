"""Computes the features of images on an Apache Spark cluster, for `trainer train --features`.

    spark-submit infra/featurize_spark.py --images images.txt --output s3a://bucket/features -- --backbone resnet50
    trainer train --features s3://bucket/features --backbone resnet50 --out my-run

`images.txt` has a line for each image: a path that every worker sees, s3://bucket/key or an http(s) address, and perhaps
a tab and its label. Spark pipes the lines through `trainer featurize --stdin`, which must be installed on every
worker, with what `trainer setup` obtains. What stands after `--` is handed on to it. An image at fault gets a row that
says why; a worker that fails is started again by Spark, and the job fails if it fails every time. Exit codes: 0 done, 3
done but some images have no features.
"""

import argparse
import os
import shlex
import sys

from pyspark.sql import SparkSession

# Spark's workers start a piped program with an empty environment; this much of the driver's goes with it.
NAMES = {"HOME", "LANG", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH", "PATH", "SSL_CERT_FILE", "TMPDIR"}
PREFIXES = ("AWS_", "IKAT_")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="the list of images, anywhere that Spark reads")
    parser.add_argument("--output", required=True, help="folder for the rows, anywhere that Spark writes; must not exist")
    parser.add_argument("--trainer", default="trainer", help="the program on the workers [default: %(default)s]")
    parser.add_argument("--images-per-task", type=int, default=2000, help="[default: %(default)s]")
    parser.add_argument("options", nargs="*", help="options of `trainer featurize`, after --")
    arguments = parser.parse_args()

    spark = SparkSession.builder.appName("ikat features").getOrCreate()
    images = spark.sparkContext.textFile(arguments.images).filter(lambda line: line.strip())
    tasks = max(1, -(-images.count() // max(1, arguments.images_per_task)))
    # One thread each: Spark runs as many tasks as a worker has cores.
    command = [arguments.trainer, "featurize", "--stdin", "--quiet", "--threads", "1", *arguments.options]
    # Exit code 3 says that some rows tell of an image at fault, which is no reason to do the task again.
    script = f'{shlex.join(command)}; code=$?; [ "$code" -eq 3 ] || exit "$code"'
    environment = {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(PREFIXES)}
    rows = images.repartition(tasks).pipe(f"sh -c {shlex.quote(script)}", env=environment, checkCode=True)
    rows.saveAsTextFile(arguments.output)

    written = spark.sparkContext.textFile(arguments.output)
    # Within a text of JSON the quotes would be escaped.
    errors = written.filter(lambda row: '"error":{' in row).count()
    print(f"{written.count()} rows; {errors} of them say why an image has no features")
    spark.stop()
    return 3 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
