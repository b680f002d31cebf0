"""The five sets of fine-grained classification that the paper trains on, and Oxford-17 Flowers."""

from __future__ import annotations

from mmgps.datasets.prepare_classes.flowers17 import FEW, write_lists
from mmgps.datasets.prepare_classes.sets import ClassSet, Part, Split
from mmgps.utils.download import Checksum

FLOWERS = 'https://www.robots.ox.ac.uk/~vgg/data/flowers/102'
DOGS = 'http://vision.stanford.edu/aditya86/ImageNetDogs'
FLOWER_NAMES = (
    'bluebell', 'buttercup', 'coltsfoot', 'cowslip', 'crocus', 'daffodil', 'daisy', 'dandelion', 'fritillary', 'iris',
    'lily_valley', 'pansy', 'snowdrop', 'sunflower', 'tigerlily', 'tulip', 'windflower',
)  # fmt: skip

SETS = (
    ClassSet(
        name='cub',
        title='CUB-200-2011',
        holds=frozenset({'images', 'images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt'}),
        parts=(
            Part(
                'CUB_200_2011.tgz',
                root='CUB_200_2011',
                url='https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz',
                # CaltechDATA gives it at https://data.caltech.edu/records/65de6-vp158.
                checksum=Checksum('md5', '97eceeb196236b17998738112f37df78'),
            ),
        ),
        splits=tuple(
            Split(name, images, dict(type='CUB', split=name)) for name, images in (('train', 5994), ('test', 5794))
        ),
        where='https://www.vision.caltech.edu/datasets/cub_200_2011 (research and education only)',
        cite='Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001',
        classes=200,
    ),
    ClassSet(
        name='nabirds',
        title='NABirds',
        holds=frozenset({'images', 'images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt'}),
        parts=(Part('nabirds.tar.gz', root='nabirds'),),
        splits=tuple(
            Split(name, images, dict(type='mmgps.NABirds', split=name))
            for name, images in (('train', 23_929), ('test', 24_633))
        ),
        where='https://dl.allaboutbirds.org/nabirds, after agreeing to its terms',
        cite='Van Horn et al., Building a bird recognition app and large scale dataset with citizen scientists, '
        'CVPR 2015',
        classes=555,
    ),
    ClassSet(
        name='oxford-flowers',
        title='Oxford-102 Flowers',
        holds=frozenset({'jpg', 'imagelabels.mat', 'setid.mat'}),
        # The digests stand in torchvision.datasets.Flowers102.
        parts=(
            Part(
                '102flowers.tgz',
                url=f'{FLOWERS}/102flowers.tgz',
                checksum=Checksum('md5', '52808999861908f626f3c1f4e79d11fa'),
            ),
            Part(
                'imagelabels.mat',
                url=f'{FLOWERS}/imagelabels.mat',
                checksum=Checksum('md5', 'e0620be6f572b9609742df49c70aed4d'),
                plain=True,
            ),
            Part(
                'setid.mat',
                url=f'{FLOWERS}/setid.mat',
                checksum=Checksum('md5', 'a5357ecc9cb78c4bef273ce3793fc85c'),
                plain=True,
            ),
        ),
        splits=tuple(
            Split(name, images, dict(type='Flowers102', split=name))
            for name, images in (('train', 1020), ('val', 1020), ('test', 6149))
        ),
        where=FLOWERS,
        cite='Nilsback and Zisserman, Automated flower classification over a large number of classes, ICVGIP 2008',
        classes=102,
    ),
    ClassSet(
        name='stanford-dogs',
        title='Stanford Dogs',
        holds=frozenset({'Images', 'train_list.mat', 'test_list.mat'}),
        parts=(Part('images.tar', url=f'{DOGS}/images.tar'), Part('lists.tar', url=f'{DOGS}/lists.tar')),
        splits=tuple(
            Split(name, images, dict(type='mmgps.StanfordDogs', split=name))
            for name, images in (('train', 12_000), ('test', 8580))
        ),
        where=DOGS,
        cite='Khosla et al., Novel dataset for fine-grained image categorization, FGVC workshop at CVPR 2011',
        classes=120,
    ),
    ClassSet(
        name='stanford-cars',
        title='Stanford Cars',
        holds=frozenset({'cars_train', 'cars_test', 'devkit'}),
        parts=(
            Part('cars_train.tgz'),
            Part('cars_test.tgz'),
            Part('car_devkit.tgz'),
            Part('cars_test_annos_withlabels.mat', into='devkit', plain=True),
        ),
        splits=tuple(
            Split(name, images, dict(type='StanfordCars', split=name))
            for name, images in (('train', 8144), ('test', 8041))
        ),
        where='copies of the page that was https://ai.stanford.edu/~jkrause/cars/car_dataset.html, which is no longer '
        'there; torchvision says the same',
        cite='Krause et al., 3D object representations for fine-grained categorization, 3dRR workshop at ICCV 2013',
        classes=196,
    ),
    ClassSet(
        name='oxford-flowers17',
        title='Oxford-17 Flowers',
        holds=frozenset({*FLOWER_NAMES, 'labels.csv', 'train.txt', 'val.txt', 'test.txt', f'train{FEW}.txt'}),
        parts=(Part('flowers17.zip'),),
        splits=tuple(
            Split(name, images, dict(type='CustomDataset', ann_file=f'{name}.txt', data_prefix=''))
            for name, images in (('train', 680), ('val', 340), ('test', 340), (f'train{FEW}', 17 * FEW))
        ),
        where='https://www.robots.ox.ac.uk/~vgg/data/flowers/17; a folder of images for each class, and labels.csv '
        'with a path and a class a line',
        cite='Nilsback and Zisserman, A visual vocabulary for flower classification, CVPR 2006',
        classes=17,
        written=('train.txt', 'val.txt', 'test.txt', f'train{FEW}.txt'),
        finish=write_lists,
    ),
)

FGVC = {entry.name: entry for entry in SETS}
"""Name on the command line to set."""
